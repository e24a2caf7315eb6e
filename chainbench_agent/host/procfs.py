"""Files of /proc, in bytes and by field: the one place that takes them apart.

They hold names, which are any bytes: of a process what it called itself, of a file what somebody made.  So a field
is looked for where the kernel puts it, never by searching, lines end at newlines and nowhere else, and a name becomes
text by kernel_text.text_of.  Every call raises OSError if the process is gone.
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
    """The `stat` of a process or thread."""

    command: str
    fields: list[str]
    """From the state on, which proc(5) numbers 3."""

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
        """PF_… of the kernel's sched.h."""
        return int(self.fields[6])

    @property
    def is_kernel_thread(self) -> bool:
        """Whether it is a kernel thread.  Such a one makes no calls; its registers, empty, look like call 0."""
        return bool(self.flags & _KERNEL_THREAD)

    @property
    def born_ticks(self) -> int:
        """When it was born, in clock ticks since the machine began (CLOCK_BOOTTIME)."""
        return int(self.fields[19])

    @property
    def stack(self) -> int:
        """Where its stack begins; 0 or 1 if it has none, or we may not know."""
        return int(self.fields[25])

    @property
    def image(self) -> tuple[int, ...]:
        """Where its code, its stack and its heap begin: the kernel draws these at random when a program is executed."""
        return int(self.fields[23]), self.stack, int(self.fields[44])


class Mount(NamedTuple):
    """A line of `mountinfo`.  Paths are as Python opens them, also where they are no UTF-8."""

    root: str
    """What of the file system is mounted; the root of a cgroup namespace is `/`, what is above it begins with `/..`."""
    where: Path
    kind: str


def read_page(path: str | Path) -> bytes:
    """A file that fits into a page; much faster than Path's way, and there may be ten thousand."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _PAGE)
    finally:
        os.close(fd)


def lines(path: str | Path) -> list[bytes]:
    """The lines of a file; a newline inside of a name is written otherwise by the kernel."""
    return Path(path).read_bytes().split(b"\n")


def stat(directory: str | Path) -> Stat:
    """`directory`: /proc/PID or /proc/PID/task/TID.  A name may have parentheses, spaces and newlines."""
    name, _, fields = read_page(f"{directory}/stat").partition(b"(")[2].rpartition(b")")
    return Stat(text_of(name), fields.decode("ascii").split())


def command_name(directory: str | Path) -> str:
    return text_of(read_page(f"{directory}/comm").removesuffix(b"\n"))


def status(directory: str | Path) -> dict[str, str]:
    """`status` by field, without the name, which `stat` has whole."""
    pairs = (line.partition(b":\t") for line in lines(f"{directory}/status"))
    return {key.decode("ascii"): value.decode("ascii") for key, _, value in pairs if key not in (b"", b"Name")}


def cgroup(directory: str | Path) -> bytes | None:
    """A process' path in the cgroup v2 hierarchy, as our own cgroup namespace has it; None if it has none."""
    for line in lines(f"{directory}/cgroup"):
        if line.startswith(b"0::"):
            return line[3:].removesuffix(b" (deleted)")
    return None


def mounts(directory: str | Path) -> Iterator[Mount]:
    """Of `mountinfo`, the first mount first."""
    for line in lines(f"{directory}/mountinfo"):
        fields, _, rest = line.partition(b" - ")
        if rest:
            _, _, _, root, where, *_ = fields.split(b" ")
            yield Mount(_path(root), Path(_path(where)), rest.split(b" ")[0].decode("ascii", "replace"))


def _path(written: bytes) -> str:
    """Space, tab, newline and backslash are octal numbers there."""
    return os.fsdecode(_OCTAL.sub(lambda word: bytes((int(word[1], 8) & 0xFF,)), written))


def mapped_path(written: bytes) -> str:
    """A path of `maps`, where of all bytes only a newline is written otherwise."""
    return os.fsdecode(written.replace(b"\\012", b"\n"))


def first_word(path: str | Path) -> str:
    """The first word of a file; empty if it is not to be read."""
    try:
        return (read_page(path).decode("ascii", "replace").split() or [""])[0]
    except OSError:
        return ""
