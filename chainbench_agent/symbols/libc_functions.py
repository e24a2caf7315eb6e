"""Where functions of user space are: in the programs and libraries that the target's processes have mapped.

For uprobes by name, the C library of each process is looked up, or the process's own program where that is linked
statically.  A target may have several: its processes may come from different containers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from chainbench_agent.host import procfs
from chainbench_agent.symbols.elf import Functions, functions_of, stands_alone

PROC = Path("/proc")
C_LIBRARY = re.compile(r"/(libc|libpthread|ld-musl)[-.][^/]*$")
"""glibc, before 2.34 in two files; musl, whose library is its dynamic linker."""


class Mapping(NamedTuple):
    """A file's code in a process.  `offset`: in the file, of what lies at `start`; `device`: as stat(2) numbers it."""

    start: int
    end: int
    offset: int
    device: int
    inode: int
    path: str
    """In the process's own mount namespace, and " (deleted)" behind it if it is no longer there."""


class Place(NamedTuple):
    """Where a function begins.  `file`: a path by which this process can open the file, whoever's it is."""

    file: str
    offset: int


def mappings(pid: int) -> tuple[Mapping, ...]:
    """The files that a process runs code of; none if it is gone."""
    try:
        lines = procfs.lines(PROC / str(pid) / "maps")
    except OSError:
        return ()
    return tuple(_mapping(line) for line in lines if b" /" in line and line.split(maxsplit=2)[1][2:3] == b"x")


def _mapping(line: bytes) -> Mapping:
    span, _, offset, device, inode, path = line.split(maxsplit=5)
    start, end = (int(address, 16) for address in span.split(b"-"))
    major, minor = (int(number, 16) for number in device.split(b":"))
    return Mapping(start, end, int(offset, 16), os.makedev(major, minor), int(inode), procfs.mapped_path(path))


class UserFunctions:
    """Of the C libraries that `processes` have; keeps these open, so that they stay what they are, until closed."""

    def __init__(self, processes: Iterable[int]) -> None:
        self.mapped: dict[int, tuple[Mapping, ...]] = {}
        self._files: dict[int, Functions] = {}
        seen: set[tuple[int, int]] = set()
        for pid in processes:
            self.mapped[pid] = mappings(pid)
            for mapping in self.mapped[pid]:
                if (mapping.device, mapping.inode) not in seen:
                    seen.add((mapping.device, mapping.inode))
                    self._look(pid, mapping)

    def _look(self, pid: int, mapping: Mapping) -> None:
        library = bool(C_LIBRARY.search(mapping.path))
        if not library and not _is_program(pid, mapping):
            return
        fd = open_mapped(pid, mapping)
        if fd < 0:
            return
        with open(fd, "rb", closefd=False) as file:
            functions = functions_of(file) if library or stands_alone(file) else Functions()
        if functions:
            self._files[fd] = functions
        else:
            os.close(fd)

    def places(self, name: str) -> list[Place]:
        """Every function of that name."""
        return [
            Place(f"/proc/self/fd/{fd}", offset)
            for fd, functions in self._files.items()
            for offset in sorted(functions.offsets(name))
        ]

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[0])


def _is_program(pid: int, mapping: Mapping) -> bool:
    try:
        return (PROC / str(pid) / "exe").readlink() == Path(mapping.path)
    except OSError:
        return False


def _paths(pid: int, mapping: Mapping) -> Iterator[Path]:
    """First the very file that is mapped, also if it was replaced; that needs CAP_SYS_ADMIN or so."""
    yield PROC / str(pid) / "map_files" / f"{mapping.start:x}-{mapping.end:x}"
    yield PROC / str(pid) / "root" / mapping.path.lstrip("/")


def open_mapped(pid: int, mapping: Mapping) -> int:
    """A descriptor of the file, to read; -1 if it, or the process, is gone."""
    for path in _paths(pid, mapping):
        with suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return -1
