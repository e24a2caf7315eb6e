"""What kind of wait a blocking function is: the ledger's categories.

A function is looked up by the longest prefix that fits, then the system call; what fits neither is `other`.
Names differ between kernels, so both the old and the new ones stand here.
"""

from __future__ import annotations

from chainbench_agent.evidence.wait import Wait

CATEGORIES: dict[str, tuple[str, ...]] = {
    "disk": (
        "io_schedule", "wait_on_page", "folio_wait", "bit_wait_io", "blk_", "submit_bio_wait", "jbd2_", "ext4_", "xfs_",
        "btrfs_", "log_wait_commit", "__iomap_dio_rw", "read_events", "wait_for_completion_io", "wbt_wait",
        "rq_qos_wait", "balance_dirty_pages",
    ),
    "network": (
        "sk_", "sock_", "inet_", "tcp_", "udp_", "wait_woken", "unix_", "__skb_wait", "skb_wait", "netlink_", "vsock_",
    ),
    "futex/lock": ("futex_", "__futex", "do_futex", "rt_mutex", "fcntl_setlk", "flock_lock", "locks_lock"),
    "sleep": ("do_nanosleep", "hrtimer_nanosleep", "do_sigtimedwait", "sigsuspend", "__do_sys_pause", "msleep"),
    "poll": ("poll_schedule_timeout", "do_sys_poll", "do_poll", "do_select", "ep_poll", "do_epoll_wait", "epoll_",
             "schedule_hrtimeout_range"),
    "pipe": ("pipe_", "anon_pipe_", "wait_for_partner", "fifo_open"),
    "wait_child": ("do_wait", "kernel_wait", "wait_task_", "__do_wait"),
    "page_fault/memory": ("do_swap_page", "filemap_fault", "__lock_page", "mem_cgroup_", "userfaultfd",
                          "handle_userfault", "shrink_", "try_to_free", "wait_on_page_fault"),
    "kernel_lock": ("__mutex_lock", "mutex_lock", "rwsem_", "down_", "__down", "percpu_", "rcu_", "synchronize_",
                    "__synchronize", "wait_rcu"),
    "throttled": ("CPU quota used up", "throttle_cfs_rq"),
    "other": ("do_wait_intr",),  # an eventfd, a timerfd: no child, though it begins like one
}  # fmt: skip

_BY_SYSCALL = {
    "vfork": "wait_child",
    "clone": "wait_child",  # with CLONE_VFORK, as posix_spawn() does
    "clone3": "wait_child",
    "wait4": "wait_child",
    "waitid": "wait_child",
    "futex": "futex/lock",
    "futex_waitv": "futex/lock",
    "nanosleep": "sleep",
    "clock_nanosleep": "sleep",
    "rt_sigtimedwait": "sleep",
    "rt_sigsuspend": "sleep",
    "pause": "sleep",
    "poll": "poll",
    "ppoll": "poll",
    "select": "poll",
    "pselect6": "poll",
    "epoll_wait": "poll",
    "epoll_pwait": "poll",
    "epoll_pwait2": "poll",
    "fsync": "disk",
    "fdatasync": "disk",
    "sync": "disk",
    "syncfs": "disk",
    "msync": "disk",
    "io_getevents": "disk",
    "accept": "network",
    "accept4": "network",
    "connect": "network",
    "recvfrom": "network",
    "recvmsg": "network",
    "recvmmsg": "network",
    "sendto": "network",
    "sendmsg": "network",
    "flock": "futex/lock",
}
_BY_PREFIX = sorted(
    ((prefix, category) for category, prefixes in CATEGORIES.items() for prefix in prefixes),
    key=lambda item: -len(item[0]),
)


def category_of(function: str, syscall: str) -> str:
    """The category of a wait.  `syscall` is empty for a page fault or another exception."""
    found = next((category for prefix, category in _BY_PREFIX if function.startswith(prefix)), "")
    if not syscall and (found == "disk" or function == "exception"):
        return "page_fault/memory"
    return found or _BY_SYSCALL.get(syscall, "other")


GENERIC = ("schedule", "__schedule", "preempt_schedule")


def name_wait(frames: tuple[str, ...], syscall: str, wait: Wait) -> tuple[str, str]:
    """The category and the reason of a wait.  `frames`: kernel functions, innermost first; () if no stack was taken."""
    del wait  # decides where no function does
    function = next((name for name in frames if not name.startswith(GENERIC)), "")
    reason = function or (f"blocked in {syscall}" if syscall else "exception")
    return category_of(reason, syscall), reason
