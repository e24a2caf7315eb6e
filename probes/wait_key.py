"""Decodes the wait key, 32 bits: what a thread was blocked in, by registers and state.  Kernel side: offcpu.h"""

from __future__ import annotations

from dataclasses import dataclass

from chainbench_agent.catalog import Names

NUMBER_MASK = 0x3FF
"""The system call's number."""

NO_CALL = 0x3FF
"""No call: a page fault or another exception, or a kernel thread."""

UNKNOWN_CALL = 0x3FE
"""A call with a larger number than the key has room for."""

COMPAT = 1 << 10
"""A 32-bit call, with the numbers of i386."""

UNINTERRUPTIBLE = 1 << 11
IOWAIT = 1 << 12
STOPPED = 1 << 13

FILE_SHIFT = 14
FILE_MASK = 0x7F
"""The kind of the file: an index of FILE_KINDS, or SOCKET and the address family."""

FILE_KINDS = (
    *("", "pipe", "char", "tty", "directory", "block", "regular", "anon"),
    *("eventfd", "timerfd", "signalfd", "inotify", "fanotify", "epoll", "io_uring", "userfaultfd", "pidfd", "mqueue"),
    "cgroup_v1",
)
SOCKET = 64
SOCKET_FAMILIES = {1: "unix", 2: "inet", 10: "inet6", 16: "netlink", 17: "packet", 40: "vsock"}
"""Address family → its name; others go by their number."""

FILE_CALLS = frozenset(
    (
        *("read", "readv", "pread64", "preadv", "preadv2", "write", "writev", "pwrite64", "pwritev", "pwritev2"),
        *("fsync", "fdatasync", "sync_file_range", "syncfs", "ftruncate", "ftruncate64", "fallocate", "close"),
        *("getdents", "getdents64", "lseek", "_llseek", "readahead", "fadvise64", "vmsplice", "fstat", "fstat64"),
        *("ioctl", "flock", "fcntl", "fcntl64", "accept", "accept4", "connect", "shutdown"),
        *("recvfrom", "recvmsg", "recvmmsg", "recvmmsg_time64", "sendto", "sendmsg", "sendmmsg"),
        *("epoll_wait", "epoll_pwait", "epoll_pwait2", "io_uring_enter"),
        *("mq_timedsend", "mq_timedsend_time64", "mq_timedreceive", "mq_timedreceive_time64"),
    )
)
"""The system calls that wait for the file whose descriptor is their first argument.

Calls with two descriptors (sendfile, splice, copy_file_range) are left out: only the blocking function shows which of
the two they wait for.
"""


@dataclass(frozen=True, slots=True)
class Wait:
    """The kind of a wait."""

    number: int | None = None
    """The system call's number, or UNKNOWN_CALL; None: no call (a page fault or another exception, a kernel thread)."""
    compat: bool = False
    """A 32-bit call: the number is i386's."""
    uninterruptible: bool = False
    iowait: bool = False
    """The kernel itself counted the thread as waiting for I/O."""
    stopped: bool = False
    """The thread was stopped by a signal or a tracer, or frozen."""
    file: str = ""
    """The kind of the file behind the call's descriptor: "pipe", "socket:unix", "eventfd", …; empty if unknown."""

    @classmethod
    def of(cls, key: int) -> Wait:
        number = key & NUMBER_MASK
        return cls(
            number=None if number == NO_CALL else number,
            compat=bool(key & COMPAT),
            uninterruptible=bool(key & UNINTERRUPTIBLE),
            iowait=bool(key & IOWAIT),
            stopped=bool(key & STOPPED),
            file=file_kind(key >> FILE_SHIFT & FILE_MASK),
        )

    def syscall(self, names: Names) -> str:
        """The system call's name; empty if the thread was not in one."""
        if self.number is None:
            return ""
        if self.number == UNKNOWN_CALL:
            return "unknown call"
        return names.of("calls_32bit" if self.compat else "calls", self.number)


def file_kind(number: int) -> str:
    """The name of a kind of file by its number in the key."""
    if number >= SOCKET:
        family = number - SOCKET
        return f"socket:{SOCKET_FAMILIES.get(family, family)}"
    return FILE_KINDS[number] if number < len(FILE_KINDS) else ""
