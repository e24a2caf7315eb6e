"""Each kind of wait by the functions that threads were seen to wait in, and by those in kernels' sources."""

from pathlib import Path
from typing import NamedTuple

import pytest

from chainbench_agent.probes.wait_categories import CATEGORIES, name_wait, plain
from chainbench_agent.probes.wait_key import Wait


class Stack(NamedTuple):
    """A row of wait_stacks.txt; what is not known there is `-`."""

    kernel: str
    state: str
    syscall: str
    file: str
    category: str
    reason: str
    frames: tuple[str, ...]

    @property
    def wait(self):
        return Wait(
            uninterruptible=self.state == "D", iowait=(self.category, self.file) == ("disk", "io_uring"), file=self.file
        )

    @classmethod
    def read(cls, row):
        kernel, state, syscall, file, category, reason, frames = row.split("  ")
        return cls(kernel, state, syscall.strip("-"), file.strip("-"), category, reason, tuple(frames.split()))


STACKS = [
    Stack.read(row)
    for row in Path(__file__).with_name("wait_stacks.txt").read_text().splitlines()
    if not row.startswith("#")
]
WCHAN_IS_LESS = {
    ("splice", "sk_wait_data"),  # `wait_woken`, and of two descriptors the call does not say which
    ("close", "sk_stream_wait_close"),  # `wait_woken`, and the file is closed already
    ("", "jbd2_journal_commit_transaction"),  # no call: only the root of the stack says that it is a kernel thread's
}
"""(System call, reason) where the innermost function says less than the whole stack."""


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: f"{stack.kernel}-{stack.syscall}-{stack.reason}")
def test_stacks_seen(stack):
    """A wait with a stack has the category and the reason that were decided when it was made."""
    assert name_wait(stack.frames, stack.syscall, stack.wait) == (stack.category, stack.reason)


@pytest.mark.parametrize(
    "stack",
    [stack for stack in STACKS if (stack.syscall, stack.reason) not in WCHAN_IS_LESS],
    ids=lambda stack: f"{stack.kernel}-{stack.syscall}-{stack.reason}",
)
def test_wchan_gives_the_same_name(stack):
    """One wait has one name, whether all of its stack is known or, as in wchan, the innermost function only."""
    category, reason = name_wait(stack.frames[:1], stack.syscall, stack.wait)

    assert (category, plain(reason)) == (stack.category, stack.reason)


SYSTEM_CALLS = ("read", "write", "fsync", "pwrite64", "io_uring_enter", "ioctl", "openat", "close", "poll", "futex")


@pytest.mark.parametrize(
    "stack", [stack for stack in STACKS if stack.syscall], ids=lambda stack: f"{stack.kernel}-{stack.reason}"
)
def test_one_function_has_one_category_whatever_the_call(stack):
    """The same stack below another system call is the same wait."""
    kernel_part = (stack.frames[0], *(name for name in stack.frames[1:] if "sys_" not in name))

    names = {name_wait(kernel_part, syscall, stack.wait) for syscall in SYSTEM_CALLS}

    assert names == {(stack.category, stack.reason)}


SOURCES = {
    "disk": """
        wait_on_page_bit wait_on_page_bit_common folio_wait_bit_killable __lock_page blk_mq_get_tag rq_qos_wait
        wbt_wait balance_dirty_pages dquot_commit loop_configure nbd_send_cmd dm_wait_for_completion
        crypt_alloc_buffer md_flush_request md_write_start md_handle_request raid5_get_active_stripe
        raid5_make_request wait_barrier raid10_write_request bch_btree_insert xlog_grant_head_wait
        xlog_state_get_iclog_space xlog_cil_force_seq xfs_log_force xfs_buf_iowait xfs_wait_buftarg xfs_file_fsync
        xfs_inodegc_flush ext4_file_fsync jbd2_journal_lock_updates btrfs_wait_ordered_range handle_reserve_ticket
        wait_extent_bit read_extent_buffer_pages ovl_sync_fs fuse_wait_on_folio_writeback fuse_set_nowrite
        f2fs_wait_on_all_pages zil_commit nfs_wait_bit_killable nfs_wait_on_request nfs_file_fsync
        nfs4_wait_clnt_recover nfs_iocounter_wait rpc_wait_bit_killable __rpc_execute rpc_wait_for_completion_task
        xprt_reserve wait_for_response wait_for_free_credits cifs_writepages smb2_reconnect compound_send_recv
        p9_client_rpc p9_virtio_request v9fs_file_fsync ceph_fsync netfs_wait_for_read afs_wait_for_operation
    """,
    "page_fault/memory": """
        swap_readpage swap_read_folio __read_swap_cache_async migration_entry_wait handle_userfault do_swap_page
        filemap_fault shrink_node shrink_inactive_list reclaim_throttle try_to_free_pages mem_cgroup_handle_over_high
        throttle_direct_reclaim congestion_wait put_and_wait_on_page_locked
    """,
    "futex/lock": """
        futex_wait_queue_me futex_wait_queue futex_lock_pi futex_wait_requeue_pi fcntl_setlk64 flock_lock_inode_wait
        posix_lock_inode_wait do_lock_file_wait nlmclnt_block
    """,
    "sleep": """
        do_nanosleep alarm_timer_nsleep msleep_interruptible msleep
    """,
    "poll": """
        ep_poll do_sys_poll do_select poll_schedule_timeout.constprop.0 io_wqe_worker io_sq_thread
    """,
    "pipe": """
        pipe_read pipe_write pipe_wait_writable wait_for_space opipe_prep
    """,
    "wait_child": """
        wait_for_vfork_done _do_fork de_thread zap_pid_ns_processes call_usermodehelper_exec
    """,
    "stopped": """
        do_freezer_trap cgroup_enter_frozen ptrace_notify do_jobctl_trap
    """,
    "terminal": """
        tty_wait_until_sent tty_write_lock uart_wait_until_sent vt_waitactive con_write
    """,
    "event": """
        timerfd_read signalfd_read signalfd_dequeue eventfd_write userfaultfd_ctx_read
    """,
    "ipc": """
        do_semtimedop do_mq_timedreceive seccomp_do_user_notification seccomp_notify_ioctl binder_thread_read
    """,
    "device": """
        drm_syncobj_wait_ioctl dma_fence_default_wait usb_start_wait_urb hidraw_read evdev_read snd_pcm_lib_read
    """,
    "network": """
        tcp_recvmsg_locked __inet_stream_connect inet_wait_for_connect __lock_sock netlink_dump
        vsock_connectible_wait_data virtio_transport_wait_close sctp_wait_for_sndbuf mptcp_wait_data
    """,
    "kernel_lock": """
        synchronize_rcu __wait_rcu_gp synchronize_srcu rcu_barrier percpu_rwsem_wait lru_add_drain_all stop_one_cpu
        affine_move_task cgroup_attach_lock cpuset_write_resmask load_module lock_mm_and_find_vma vm_mmap_pgoff
        __vm_munmap do_mprotect_pkey xfs_ilock_attr_map_shared btrfs_tree_read_lock_nested xfs_buf_lock __fdget_pos
        iterate_dir lookup_slow
    """,
    "throttled": """
        throttle_cfs_rq
    """,
}


@pytest.mark.parametrize(
    ("category", "function"),
    [(category, function) for category, functions in SOURCES.items() for function in functions.split()],
)
@pytest.mark.parametrize("syscall", ["read", "write", "fsync"])
def test_functions_in_sources(category, function, syscall):
    """Functions of 5.10 to 7.2 that wait, and were not met here: the same category below every call."""
    assert name_wait((function,), syscall, Wait()) == (category, plain(function))


def test_every_category_has_a_function():
    """A new category needs one that proves it."""
    assert {stack.category for stack in STACKS} | set(SOURCES) | {"other"} == set(CATEGORIES)


@pytest.mark.parametrize(
    ("generic", "caller", "category"),
    [
        ("schedule_timeout", "unix_wait_for_peer", "network"),
        ("io_schedule_timeout", "__wait_for_common", "disk"),
        ("schedule_hrtimeout_range", "ep_poll", "poll"),
        ("wait_for_completion", "dm_wait_for_completion", "disk"),
        ("wait_for_completion_state", "stop_one_cpu", "kernel_lock"),
        ("wait_woken", "n_tty_read", "terminal"),
        ("out_of_line_wait_on_bit", "nfs_wait_on_request", "disk"),
        ("do_wait", "kernel_wait4", "wait_child"),
    ],
)
def test_generic_functions_name_nothing(generic, caller, category):
    """Threads wait in them for anything: their caller is the reason, or a caller of that."""
    frames = (generic, caller, "submit_bio_wait" if caller == "__wait_for_common" else "vfs_read")

    named, reason = name_wait(frames, "read", Wait())

    assert (named, reason) == (category, "submit_bio_wait" if caller == "__wait_for_common" else caller)


@pytest.mark.parametrize("lock", ["mutex_lock", "__mutex_lock.constprop.0", "rwsem_down_write_slowpath", "down_read"])
@pytest.mark.parametrize("taker", ["ext4_rename", "tcp_setsockopt", "pipe_write", "a_function_of_a_driver"])
def test_a_lock_of_the_kernel_is_one_whoever_takes_it(lock, taker):
    """The caller says whose lock it is, not what is waited for."""
    assert name_wait((lock, taker, "vfs_write"), "write", Wait(uninterruptible=True)) == ("kernel_lock", taker)


def test_a_futex_with_priority_inheritance_is_the_program_s():
    """It waits in a lock of the kernel's."""
    frames = ("rt_mutex_wait_proxy_lock", "futex_lock_pi", "do_futex")

    assert name_wait(frames, "futex", Wait()) == ("futex/lock", "futex_lock_pi")


@pytest.mark.parametrize("kernel", [("io_cqring_wait", "__do_sys_io_uring_enter"), ("__do_sys_io_uring_enter",)])
@pytest.mark.parametrize(
    ("waker", "iowait", "category"),
    [
        (("task_work_add", "__io_req_task_work_add", "io_poll_wake", "__wake_up_common"), True, "poll"),
        (("task_work_add", "__io_req_task_work_add", "io_timeout_fn", "__hrtimer_run_queues"), True, "sleep"),
        (("task_work_add", "__io_req_task_work_add", "iomap_dio_bio_end_io", "blk_update_request"), False, "disk"),
        (("autoremove_wake_function", "__wake_up", "io_sq_thread"), True, "disk"),
        (("autoremove_wake_function", "__wake_up", "io_sq_thread"), False, "poll"),
        ((), True, "disk"),
        ((), False, "poll"),
    ],
)
def test_completions_of_io_uring(kernel, waker, iowait, category):
    """The function that completed it gives the category, else the kernel's mark for I/O does.

    The reason is the function of the thread that waits.
    """
    frames = (*kernel, "do_syscall_64", "entry_SYSCALL_64_after_hwframe", *waker)

    assert name_wait(frames, "io_uring_enter", Wait(iowait=iowait, file="io_uring")) == (category, kernel[0])


def test_an_unknown_function_has_the_category_of_a_known_caller():
    """A file system's function of tomorrow is called from one of today's."""
    frames = ("wait_for_something_new", "ext4_something_new", "vfs_write", "__x64_sys_write")

    assert name_wait(frames, "write", Wait()) == ("disk", "wait_for_something_new")


@pytest.mark.parametrize("frames", [("hrtimer_nanosleep", "common_nsleep"), ("anon_pipe_read",)])
def test_frozen_in_its_sleep(frames):
    """Since 6.1 the freezer leaves a sleeping thread in its function: only its state shows that it is frozen."""
    assert name_wait(frames, "read", Wait(stopped=True)) == ("stopped", "frozen")


def test_stopped_without_a_stack():
    """A stopped thread is in `stopped`, whichever call it is in."""
    assert name_wait((), "fsync", Wait(stopped=True)) == ("stopped", "stopped, traced or frozen")


def test_only_the_innermost_get_signal_is_a_stop():
    """A thread that a signal ends waits for other things on its way out."""
    assert name_wait(("get_signal", "arch_do_signal_or_restart"), "read", Wait()) == ("stopped", "get_signal")
    assert name_wait(("exit_aio", "mmput", "do_exit", "get_signal"), "read", Wait()) == ("disk", "exit_aio")


@pytest.mark.parametrize(
    ("file", "category"),
    [
        *(("pipe", "pipe"), ("tty", "terminal"), ("epoll", "poll"), ("mqueue", "ipc"), ("char", "device")),
        *((f"socket:{family}", "network") for family in ("unix", "inet", "inet6", "netlink", "38")),
        *((file, "event") for file in ("eventfd", "timerfd", "signalfd", "inotify", "fanotify", "userfaultfd")),
        *((file, "other") for file in ("regular", "directory", "block", "anon", "")),
    ],
)
@pytest.mark.parametrize("frames", [(), ("a_function_of_a_driver", "vfs_read")])
def test_the_kind_of_the_file(file, category, frames):
    """It gives the category where no function does; a wait that a signal can end is not for a file system."""
    assert name_wait(frames, "read", Wait(file=file))[0] == category


def test_a_file_system_is_waited_for_without_signals():
    """No stack, and a read of a file that no signal ends."""
    assert name_wait((), "read", Wait(file="regular", uninterruptible=True)) == ("disk", "blocked in read")


def test_iowait_where_no_function_says_more():
    """The kernel marks it itself."""
    assert name_wait(("a_function_of_a_driver",), "ioctl", Wait(iowait=True)) == ("disk", "a_function_of_a_driver")
    assert name_wait(("a_function_of_a_driver",), "ioctl", Wait()) == ("other", "a_function_of_a_driver")


def test_a_function_that_takes_a_lock_and_does_io():
    """The kernel marks no wait for a lock as one for I/O."""
    frames = ("ext4_file_write_iter", "vfs_write")

    assert name_wait(frames, "write", Wait(uninterruptible=True))[0] == "kernel_lock"
    assert name_wait(frames, "write", Wait(uninterruptible=True, iowait=True))[0] == "disk"


def test_page_faults():
    """Page faults in a system call count, too; disk reads of a kernel thread are not page faults."""
    disk = ("folio_wait_bit_common", "filemap_read_folio")

    assert name_wait(disk, "", Wait())[0] == "page_fault/memory"
    assert (
        name_wait((*disk, "filemap_fault", "handle_mm_fault", "exc_page_fault"), "read", Wait())[0]
        == "page_fault/memory"
    )
    assert name_wait((*disk, "io_wq_submit_work", "io_wq_worker", "ret_from_fork"), "", Wait())[0] == "disk"
    assert name_wait((), "", Wait()) == ("page_fault/memory", "exception")


@pytest.mark.parametrize(
    ("syscall", "category"),
    [
        *((name, "wait_child") for name in ("vfork", "clone", "clone3", "wait4", "waitid", "waitpid")),
        *((name, "futex/lock") for name in ("futex", "futex_waitv", "futex_time64", "flock")),
        *((name, "sleep") for name in ("nanosleep", "clock_nanosleep", "pause", "rt_sigsuspend", "rt_sigtimedwait")),
        *(
            (name, "poll")
            for name in ("poll", "ppoll", "select", "_newselect", "pselect6", "epoll_wait", "epoll_pwait")
        ),
        *((name, "disk") for name in ("fsync", "fdatasync", "sync", "syncfs", "msync", "io_getevents")),
        *(
            (name, "network")
            for name in ("accept", "accept4", "connect", "recvfrom", "recvmsg", "sendto", "socketcall")
        ),
        *((name, "ipc") for name in ("semop", "semtimedop", "msgrcv", "msgsnd", "mq_timedsend", "mq_timedreceive")),
        ("membarrier", "kernel_lock"),
        *((name, "other") for name in ("read", "write", "ioctl", "openat")),
    ],
)
def test_without_a_function_that_says_it(syscall, category):
    """Without a stack, or with a general function, a system call that waits for only one thing gives the category."""
    assert name_wait((), syscall, Wait()) == (category, f"blocked in {syscall}")
    assert name_wait(("__wait_for_common",), syscall, Wait())[0] == category


def test_what_the_compiler_appends_is_no_part_of_a_name():
    """So that a wait has the same reason on kernels that were built by others."""
    assert plain("poll_schedule_timeout.constprop.0") == "poll_schedule_timeout"
    assert plain("xfs_file_dio_write_aligned.constprop.0.isra.0") == "xfs_file_dio_write_aligned"
    assert plain("do_nanosleep") == "do_nanosleep"
