"""Reads from procfs what a thread is blocked in: the wait key and the kernel functions.

probes/offcpu.c records both when a wait ends.  This file serves the waits that do not: of threads that sleep when a run
ends, or all through it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace

from chainbench_agent.evidence.sample import OpenInterval, Sleeper, TaskState
from chainbench_agent.host import procfs
from chainbench_agent.host.syscall_names import syscalls
from chainbench_agent.probes.wait_key import (
    COMPAT,
    FILE_CALLS,
    FILE_KINDS,
    FILE_SHIFT,
    NO_CALL,
    NUMBER_MASK,
    SOCKET,
    STOPPED,
    UNINTERRUPTIBLE,
    UNKNOWN_CALL,
)

PROC = "/proc"

_STATES = {"D": UNINTERRUPTIBLE, "T": STOPPED, "t": STOPPED}
_TYPES = {
    stat.S_IFIFO: "pipe",
    stat.S_IFDIR: "directory",
    stat.S_IFBLK: "block",
    stat.S_IFREG: "regular",
    stat.S_IFCHR: "char",
}
_ANONYMOUS = {"eventpoll": "epoll"}
_PROTOCOLS = {b"UNIX": 1, b"NETLINK": 16, b"PACKET": 17, b"AF_VSOCK": 40}
"""Prefix of the name of a socket's protocol → address family; all other names belong to IPv4 and IPv6."""


def wait_key(directory: str) -> int:
    """The wait key of the thread with this directory in /proc."""
    state, is_kernel_thread = _state(directory)
    fields = ["-1"] if is_kernel_thread else _words(f"{directory}/syscall")
    key = _STATES.get(state, 0)
    if not fields:  # this user may not read it
        return key | UNKNOWN_CALL
    if not fields[0].isdigit():
        return key | NO_CALL
    number = min(int(fields[0]) & ~0x40000000, UNKNOWN_CALL)
    compat = _is_32bit(directory)
    name = syscalls("i386" if compat else os.uname().machine).get(number, "")
    kind = _file(directory, int(fields[1], 16) & 0xFFFFFFFF) if name in FILE_CALLS and len(fields) > 1 else 0
    return key | number | (COMPAT if compat else 0) | kind << FILE_SHIFT


def functions(directory: str) -> tuple[str, ...]:
    """The kernel functions that the thread is blocked in, innermost first; only one of them unless we are root."""
    try:
        return tuple(re.findall(r"^\[<\w*>\] ([\w.]+?)(?:\.[\w.]*)?\+", _text(f"{directory}/stack"), re.MULTILINE))
    except OSError:
        function = (_words(f"{directory}/wchan") or ["0"])[0]
        return () if function == "0" else (function,)


def with_functions(tasks: Iterable[OpenInterval]) -> Iterator[OpenInterval]:
    """`tasks`, with their functions if they are still in the wait in which the run ended."""
    for task in tasks:
        if task.state != TaskState.BLOCKED:
            yield task
            continue
        directory = f"{PROC}/{task.tid}"
        before = _switches(directory)
        frames = functions(directory)
        known = frames and _is_in(directory, task.wait) and before == _switches(directory)
        yield replace(task, frames=frames) if known else task


def with_waits(threads: Iterable[Sleeper]) -> Iterator[Sleeper]:
    """`threads`, with the wait keys and functions of those that sleep."""
    for sleeper in threads:
        directory = f"{PROC}/{sleeper.thread.tid}"
        asleep = sleeper.proc.asleep
        yield replace(sleeper, wait=wait_key(directory), frames=functions(directory)) if asleep else sleeper


def _state(directory: str) -> tuple[str, bool]:
    """The state of a thread, and whether it is a kernel thread."""
    with suppress(OSError, IndexError, ValueError):
        found = procfs.stat(directory)
        return found.state, found.is_kernel_thread
    return "", False


def _is_in(directory: str, wait: int) -> bool:
    """Whether the thread is still in the system call in which it was blocked."""
    fields = _words(f"{directory}/syscall")
    if not fields or fields[0] == "running":
        return False
    number, of_wait = fields[0], wait & NUMBER_MASK
    return of_wait in (NO_CALL, UNKNOWN_CALL) or (number.isdigit() and int(number) & ~0x40000000 == of_wait)


def _switches(directory: str) -> list[str]:
    """The third number of schedstat: how often the thread was put on a CPU."""
    return _words(f"{directory}/schedstat")[2:]


def _is_32bit(directory: str) -> bool:
    """Whether the program is a 32-bit one.  A 64-bit program that makes 32-bit calls is not recognized here."""
    with suppress(OSError), open(f"{directory}/exe", "rb") as file:  # noqa: PTH123 - thousands of Paths are slow
        return os.uname().machine == "x86_64" and file.read(5) == b"\x7fELF\x01"
    return False


def _file(directory: str, descriptor: int) -> int:
    """The kind of an open file, as in the wait key; 0 if it is not known."""
    path = f"{directory}/fd/{descriptor}"
    try:
        link, mode = os.readlink(path), stat.S_IFMT(os.stat(path).st_mode)  # noqa: PTH115, PTH116
    except OSError:
        return 0
    if mode == stat.S_IFSOCK:
        return SOCKET + _family(path)
    if name := re.match(r"anon_inode:\[?(\w+)", link):
        kind = _ANONYMOUS.get(name[1], name[1])
        return FILE_KINDS.index(kind if kind in FILE_KINDS else "anon")
    if link.startswith(("/dev/pts/", "/dev/tty", "/dev/console", "/dev/ptmx")):
        return FILE_KINDS.index("tty")
    return FILE_KINDS.index(_TYPES.get(mode, ""))


def _family(path: str) -> int:
    try:
        protocol = os.getxattr(path, "system.sockprotoname")
    except OSError:
        return 0
    family = next((family for name, family in _PROTOCOLS.items() if protocol.startswith(name)), 2)
    return 10 if family == 2 and protocol.rstrip(b"\0").endswith(b"v6") else family


def _words(path: str) -> list[str]:
    try:
        return _text(path).split()
    except OSError:
        return []


def _text(path: str) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 16384).decode(errors="replace")
    finally:
        os.close(fd)
