"""Each kind of wait by the functions that threads were seen to block in, on kernels from 5.10 to 7.2."""

import pytest

from chainbench_agent.evidence.categories import CATEGORIES, category_of

SEEN = {
    ("futex/lock", "futex"): ("futex_wait_queue_me", "futex_wait_queue", "futex_do_wait", "futex_wait"),
    ("sleep", "clock_nanosleep"): ("do_nanosleep", "hrtimer_nanosleep"),
    ("sleep", "rt_sigtimedwait"): ("do_sigtimedwait",),
    ("poll", "poll"): ("poll_schedule_timeout.constprop.0", "schedule_hrtimeout_range_clock", "do_sys_poll"),
    ("poll", "select"): ("poll_schedule_timeout", "schedule_hrtimeout_range", "do_select"),
    ("poll", "epoll_wait"): ("ep_poll", "do_epoll_wait"),
    ("pipe", "read"): ("pipe_read", "anon_pipe_read"),
    ("pipe", "write"): ("pipe_write", "anon_pipe_write"),
    ("disk", "read"): ("io_schedule", "folio_wait_bit", "folio_wait_bit_common", "wait_on_page_bit", "bit_wait_io"),
    ("disk", "fsync"): (
        *("io_schedule_timeout", "wait_for_completion_io", "submit_bio_wait"),
        *("jbd2_log_wait_commit", "blk_mq_get_tag"),
    ),
    ("network", "recvfrom"): ("wait_woken", "sk_wait_data", "unix_stream_read_generic"),
    ("network", "sendto"): ("sk_stream_wait_memory",),
    ("network", "accept4"): ("inet_csk_accept",),
    ("wait_child", "wait4"): ("do_wait", "kernel_wait4"),
    ("kernel_lock", "openat"): (
        *("__mutex_lock.constprop.0", "rwsem_down_read_slowpath", "rwsem_down_write_slowpath", "__down"),
        *("synchronize_rcu", "percpu_rwsem_wait"),
    ),
    ("page_fault/memory", ""): (
        *("io_schedule", "folio_wait_bit_common", "wait_on_page_bit_common", "bit_wait_io"),
        *("do_swap_page", "filemap_fault", "exception", "handle_userfault"),
    ),
    ("page_fault/memory", "read"): ("shrink_node", "mem_cgroup_handle_over_high"),
    ("throttled", ""): ("CPU quota used up",),
    ("other", "read"): ("do_wait_intr_irq", "p9_client_rpc", "blocked in read"),
    ("other", ""): ("not told apart", "blocked in the kernel", "", "p9_client_rpc"),
}


@pytest.mark.parametrize(
    ("category", "syscall", "function"),
    [(category, syscall, function) for (category, syscall), functions in SEEN.items() for function in functions],
)
def test_functions(category, syscall, function):
    """Old names and new ones are the same wait."""
    assert category_of(function, syscall) == category


def test_every_category_was_seen():
    """A new one needs a function that proves it."""
    assert {category for category, _ in SEEN} == set(CATEGORIES)


@pytest.mark.parametrize(
    ("syscall", "category"),
    [
        *((name, "wait_child") for name in ("vfork", "clone", "clone3", "wait4", "waitid")),
        *((name, "futex/lock") for name in ("futex", "futex_waitv", "flock")),
        *((name, "sleep") for name in ("nanosleep", "clock_nanosleep", "pause", "rt_sigsuspend", "rt_sigtimedwait")),
        *((name, "poll") for name in ("poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait")),
        *((name, "disk") for name in ("fsync", "fdatasync", "sync", "syncfs", "msync", "io_getevents")),
        *((name, "network") for name in ("accept", "accept4", "connect", "recvfrom", "recvmsg", "sendto", "sendmsg")),
        *((name, "other") for name in ("read", "write", "ioctl", "openat")),
    ],
)
def test_without_a_function_that_says_it(syscall, category):
    """No stack, or one that ends in something general: the system call tells, if it waits for one thing only."""
    assert category_of(f"blocked in {syscall}", syscall) == category
    assert category_of("__wait_for_common", syscall) == category


def test_the_function_tells_more_than_the_system_call():
    """A read may wait for anything; so may a call that mostly waits for one thing."""
    assert category_of("pipe_read", "read") == "pipe"
    assert category_of("__mutex_lock", "futex") == "kernel_lock"


def test_the_longest_prefix_counts():
    """`wait_on_page_fault…` begins like the wait for a page of a file."""
    assert category_of("wait_on_page_bit", "read") == "disk"
    assert category_of("wait_on_page_fault", "read") == "page_fault/memory"
    assert category_of("do_wait", "read") == "wait_child"
    assert category_of("do_wait_intr", "read") == "other"
