"""Names a wait: its category in the ledger, and the kernel function that means something to a reader of kernel code.

One function has one category, whatever the system call.  The rules; the first that gives a category decides:

1. a thread that is stopped, traced or frozen is `stopped`, whatever it was doing before;
2. the innermost function that is not a generic one (`wait_woken`) is the reason; if the table knows it, its category;
3. the first caller that the table knows;
4. the kind of the file that the call was made on;
5. the system call, if it waits for one thing only;
6. the kernel's own mark that the thread waits for I/O: `disk`.

A wait for which no rule gives a category is `other`.  Decisions: docs/decisions/0018-reasons-of-waits.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from chainbench_agent.probes.wait_functions import (
    ANYWHERE,
    FAULTS,
    GENERIC,
    INNERMOST,
    KERNEL_THREADS,
    LOCKS,
    WEAK,
)
from chainbench_agent.probes.wait_key import Wait

CATEGORIES = (*ANYWHERE, "other")
MEMORY = "page_fault/memory"

_FILES = {
    "pipe": "pipe",
    "tty": "terminal",
    "epoll": "poll",
    "pidfd": "wait_child",
    "mqueue": "ipc",
    "char": "device",
    **dict.fromkeys(("eventfd", "timerfd", "signalfd", "inotify", "fanotify", "userfaultfd"), "event"),
}
_DISK_FILES = frozenset(("regular", "directory", "block"))
"""A thread that waits for one of these, and not for a signal, waits for its file system."""

_CALLS = {
    call: category
    for category, calls in {
        "wait_child": "vfork clone clone3 wait4 waitid waitpid",  # clone: with CLONE_VFORK, as posix_spawn() does
        "futex/lock": "futex futex_time64 futex_wait futex_waitv futex_requeue flock",
        "sleep": "nanosleep clock_nanosleep clock_nanosleep_time64 rt_sigtimedwait rt_sigtimedwait_time64 "
        "rt_sigsuspend sigsuspend pause",
        "poll": "poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_wait epoll_pwait "
        "epoll_pwait2 io_uring_enter",
        "disk": "fsync fdatasync sync syncfs msync sync_file_range io_getevents io_pgetevents io_pgetevents_time64",
        "network": "accept accept4 connect recvfrom recvmsg recvmmsg recvmmsg_time64 recv sendto sendmsg sendmmsg send "
        "socketcall",
        "ipc": "semop semtimedop semtimedop_time64 msgsnd msgrcv ipc mq_timedsend mq_timedsend_time64 mq_timedreceive "
        "mq_timedreceive_time64",
        "kernel_lock": "membarrier",
    }.items()
    for call in calls.split()
}

_READS = frozenset(("read", "readv", "recvfrom", "recvmsg", "recvmmsg", "recvmmsg_time64", "recv"))
_WRITES = frozenset(("write", "writev", "sendto", "sendmsg", "sendmmsg", "send", "sendfile", "sendfile64"))
_CALLERS: dict[tuple[str, str, str], str] = {
    ("wait_woken", "tty", "read"): "n_tty_read",
    ("wait_woken", "tty", "write"): "n_tty_write",
    ("wait_woken", "inotify", "read"): "inotify_read",
    ("wait_woken", "fanotify", "read"): "fanotify_read",
    ("wait_woken", "socket", "read"): "sk_wait_data",
    ("wait_woken", "socket", "write"): "sk_stream_wait_memory",
    ("do_wait_intr_irq", "eventfd", "read"): "eventfd_read",
    ("do_wait_intr_irq", "eventfd", "write"): "eventfd_write",
    ("do_wait_intr_irq", "timerfd", "read"): "timerfd_read_iter",
    ("do_wait", "", "wait4"): "kernel_wait4",
    ("do_wait", "", "waitid"): "kernel_waitid",
}
"""(Generic function, kind of file, call) → the caller that a whole stack shows; wchan has the innermost only."""


class _Functions:
    """Names of functions, and beginnings of names, each with its meaning."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self._meaning = {name: meaning for meaning, names in table.items() for name in names.split()}

    def of(self, function: str) -> str:
        """The meaning of the longest name that fits; empty if none does."""
        if function in self._meaning:
            return self._meaning[function]
        beginnings = (f"{function[:length]}*" for length in range(len(function), 0, -1))
        return next((self._meaning[name] for name in beginnings if name in self._meaning), "")


_anywhere, _innermost, _weak = _Functions(ANYWHERE), _Functions(INNERMOST), _Functions(WEAK)
_generic, _locks = _Functions({"generic": GENERIC}), _Functions({"lock": LOCKS})
_faults, _kernel_threads = frozenset(FAULTS.split()), frozenset(KERNEL_THREADS.split())
_COMPLETIONS = re.compile("(__)?io_cqring_wait|__do_sys_io_uring_enter")
"""Functions that wait for completions of io_uring, of any kind; see `_completed`."""

_COMPLETED = {
    "poll": re.compile("io_poll_|__io_poll|io_async_wake|__io_async_wake"),  # a socket, a pipe, a terminal
    "sleep": re.compile("io_timeout_fn"),
    "disk": re.compile("io_complete_rw|io_async_buf|iomap_dio|dio_|blk_|bio_|io_wq_submit_work"),
}

_ENTRIES = re.compile(
    r"do_syscall|entry_|__(x64|ia32|arm64|se|do)_(compat_)?sys_|invoke_syscall|el0|asm_|ret_from_fork"
)
"""Functions by which threads enter the kernel: they are in every stack, so they say nothing about a wait."""


@cache
def plain(function: str) -> str:
    """A function's name without the suffixes that the compiler appends for its copies and parts."""
    return re.sub(r"\.(constprop|isra|part|cold|llvm|lto_priv).*", "", function)


def name_wait(frames: tuple[str, ...], syscall: str, wait: Wait) -> tuple[str, str]:
    """The category and the reason of a wait.

    `frames`: kernel functions, innermost first; only the first of them where it comes from wchan; () if no stack was
    taken.  `syscall`: the name of the call, empty for a page fault, another exception and a kernel thread.
    """
    stack = tuple(map(plain, frames))
    telling = tuple(name for name in stack if not _generic.of(name)) or _caller(stack, syscall, wait.file)
    reason = telling[0] if telling else stack[0] if stack else f"blocked in {syscall}" if syscall else "exception"
    if wait.stopped or _innermost_category(telling) == "stopped":
        return "stopped", _stopped_in(telling)
    if stack and _locks.of(stack[0]) and not _is_futex(telling):
        return "kernel_lock", reason
    return _category(stack, telling, syscall, wait), reason


def _stopped_in(telling: tuple[str, ...]) -> str:
    """A frozen thread may still be in the function that it slept in before."""
    if _innermost_category(telling) == "stopped":
        return telling[0]
    return "frozen" if telling else "stopped, traced or frozen"


def _is_futex(telling: tuple[str, ...]) -> bool:
    """Whether it waits for a futex: one with priority inheritance is in a lock of the kernel, but is the program's."""
    return bool(telling) and _anywhere.of(telling[0]) == "futex/lock"


def _caller(stack: tuple[str, ...], syscall: str, file: str) -> tuple[str, ...]:
    """The function that called a generic one, as far as the file and the call show it."""
    if not stack:
        return ()
    kind = "socket" if file.startswith("socket") else file
    direction = "read" if syscall in _READS else "write" if syscall in _WRITES else syscall
    caller = _CALLERS.get((stack[0], kind, direction)) or _CALLERS.get((stack[0], "", syscall), "")
    return (caller,) if caller else ()


def _innermost_category(telling: tuple[str, ...]) -> str:
    return (_innermost.of(telling[0]) or _anywhere.of(telling[0])) if telling else ""


def _category(stack: tuple[str, ...], telling: tuple[str, ...], syscall: str, wait: Wait) -> str:
    if telling and _COMPLETIONS.match(telling[0]):
        return _completed(telling) or ("disk" if wait.iowait else "poll")
    if wait.iowait and telling and _innermost.of(telling[0]) == "kernel_lock":
        return "disk"  # the kernel marks no wait for a lock: the function waits for I/O itself, too
    weak = (_weak.of(name) for name in stack)
    category = (
        _by_functions(telling)
        or next((category for category in weak if category), "")
        or _by_file(wait)
        or _CALLS.get(syscall, "")
        or ("disk" if wait.iowait else "" if stack or syscall else MEMORY)
    )
    return MEMORY if category == "disk" and _is_fault(telling, syscall) else category or "other"


def _completed(telling: tuple[str, ...]) -> str:
    """The kind of request that ended a wait for io_uring's completions; empty if the functions do not show it."""
    kinds = ((kind, name) for name in telling for kind in _COMPLETED)
    return next((kind for kind, name in kinds if _COMPLETED[kind].match(name)), "")


def _by_functions(telling: tuple[str, ...]) -> str:
    """The category of the innermost function, or else of the first caller that has one."""
    callers = (_anywhere.of(name) for name in telling[1:] if not _ENTRIES.match(name))
    return _innermost_category(telling) or next((category for category in callers if category), "")


def _by_file(wait: Wait) -> str:
    if wait.file.startswith("socket"):
        return "network"
    if wait.file in _DISK_FILES:
        return "disk" if wait.uninterruptible else ""
    return _FILES.get(wait.file, "")


def _is_fault(telling: tuple[str, ...], syscall: str) -> bool:
    """Whether the wait is for a page fault; a system call that touches absent memory causes one, too."""
    if not _faults.isdisjoint(telling):
        return True
    return not syscall and _kernel_threads.isdisjoint(telling)
