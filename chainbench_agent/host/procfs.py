"""Parsers for the files of /proc.

These files contain names of processes and files, which may be any bytes.  So a field is read at the position where
the kernel writes it, never searched for; lines end at newlines only; and kernel_text.text_of makes a name text.
Every function raises OSError if the process has ended.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from chainbench_agent.abi.kernel_text import text_of

_PAGE = 4096
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD
_OCTAL = re.compile(rb"\\([0-7]{3})")


class Stat(NamedTuple):
    """The fields of `stat` of a process or thread."""

    command: str
    fields: list[str]
    """All after the command name: the first is the state, which proc(5) numbers 3."""

    @property
    def state(self) -> str:
        return self.fields[0]

    @property
    def parent(self) -> int:
        return int(self.fields[1])

    @property
    def process_group(self) -> int:
        return int(self.fields[2])

    @property
    def session(self) -> int:
        return int(self.fields[3])

    @property
    def flags(self) -> int:
        """The PF_… bits of the kernel's sched.h."""
        return int(self.fields[6])

    @property
    def is_kernel_thread(self) -> bool:
        """A kernel thread makes no system calls; its registers are empty, which looks like call 0."""
        return bool(self.flags & _KERNEL_THREAD)

    @property
    def born_ticks(self) -> int:
        """When it was created, in clock ticks since the machine booted (CLOCK_BOOTTIME)."""
        return int(self.fields[19])

    @property
    def stack(self) -> int:
        """Where its stack begins; 0 or 1 if it has no stack, or we may not read that."""
        return int(self.fields[25])

    @property
    def image(self) -> tuple[int, ...]:
        """Where its code, stack and heap begin: the kernel chooses these at random when it executes a program."""
        return int(self.fields[23]), self.stack, int(self.fields[44])


class Mount(NamedTuple):
    """A line of `mountinfo`.  Python can open its paths, also where they are not UTF-8."""

    root: str
    """The directory of the file system that is mounted.  `/` is the root of a cgroup namespace, `/..` lies above."""
    where: Path
    kind: str


def read_page(path: str | Path) -> bytes:
    """The contents of a file that fits into a page.  Much faster than Path; there may be ten thousand of them."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _PAGE)
    finally:
        os.close(fd)


def lines(path: str | Path) -> list[bytes]:
    """The lines of a file.  The kernel escapes a newline in a name, so each line is whole."""
    return Path(path).read_bytes().split(b"\n")


def stat(directory: str | Path) -> Stat:
    """`directory` is /proc/PID or /proc/PID/task/TID.  A name may contain parentheses, spaces and newlines."""
    name, _, fields = read_page(f"{directory}/stat").partition(b"(")[2].rpartition(b")")
    return Stat(text_of(name), fields.decode("ascii").split())


def command_name(directory: str | Path) -> str:
    return text_of(read_page(f"{directory}/comm").removesuffix(b"\n"))


def status(directory: str | Path) -> dict[str, str]:
    """The fields of `status` by name, without the command name, which `stat` has unescaped."""
    pairs = (line.partition(b":\t") for line in lines(f"{directory}/status"))
    return {key.decode("ascii"): value.decode("ascii") for key, _, value in pairs if key not in (b"", b"Name")}


def cgroup(directory: str | Path) -> bytes | None:
    """A process' path in the cgroup v2 hierarchy, in our own cgroup namespace; None if it has no path there."""
    for line in lines(f"{directory}/cgroup"):
        if line.startswith(b"0::"):
            return line[3:].removesuffix(b" (deleted)")
    return None


def mounts(directory: str | Path) -> Iterator[Mount]:
    """The mounts in `mountinfo`, in its order."""
    for line in lines(f"{directory}/mountinfo"):
        fields, _, rest = line.partition(b" - ")
        if rest:
            _, _, _, root, where, *_ = fields.split(b" ")
            yield Mount(_path(root), Path(_path(where)), rest.split(b" ")[0].decode("ascii", "replace"))


def _path(written: bytes) -> str:
    """A path of `mountinfo`, in which space, tab, newline and backslash are octal escapes."""
    return os.fsdecode(_OCTAL.sub(lambda escape: bytes((int(escape[1], 8) & 0xFF,)), written))


def mapped_path(written: bytes) -> str:
    """A path of `maps`, in which only a newline is escaped."""
    return os.fsdecode(written.replace(b"\\012", b"\n"))


def first_word(path: str | Path) -> str:
    """The first word of a file; empty if the file cannot be read."""
    try:
        return (read_page(path).decode("ascii", "replace").split() or [""])[0]
    except OSError:
        return ""
