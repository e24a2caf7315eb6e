"""What a thread was blocked in, by its registers and its state: the wait key of probes/offcpu.h, decoded."""

from __future__ import annotations

from dataclasses import dataclass

from chainbench_agent.catalog import Names
from chainbench_agent.probes.wait_key import (
    COMPAT,
    FILE_KINDS,
    FILE_MASK,
    FILE_SHIFT,
    IOWAIT,
    NO_CALL,
    NUMBER_MASK,
    SOCKET,
    SOCKET_FAMILIES,
    STOPPED,
    UNINTERRUPTIBLE,
    UNKNOWN_CALL,
)


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
    """By a signal or a tracer, or frozen."""
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
        """The system call's name; empty if it was none."""
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
