"""The layout of a wait key: 32 bits that say what a thread was blocked in.  Kernel side: offcpu.h"""

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

Calls with two descriptors (sendfile, splice, copy_file_range) are left out: which of the two they wait for, only the
blocking function tells.
"""
