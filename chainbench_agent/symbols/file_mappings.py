"""The programs and libraries that a process has mapped, from /proc/PID/maps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from chainbench_agent.host import procfs

PROC = Path("/proc")


class FileMapping(NamedTuple):
    """A mapping of a file's code.  `offset`: position in the file that is mapped at `start`; `device`: see stat(2)."""

    start: int
    end: int
    offset: int
    device: int
    inode: int
    path: str
    """In the mount namespace of the process; " (deleted)" follows it if the file was deleted."""


def read_mappings(pid: int) -> tuple[FileMapping, ...]:
    """The executable mappings of files; empty if the process has ended."""
    try:
        lines = procfs.lines(PROC / str(pid) / "maps")
    except OSError:
        return ()
    return tuple(_mapping(line) for line in lines if b" /" in line and line.split(maxsplit=2)[1][2:3] == b"x")


def _mapping(line: bytes) -> FileMapping:
    span, _, offset, device, inode, path = line.split(maxsplit=5)
    start, end = (int(address, 16) for address in span.split(b"-"))
    major, minor = (int(number, 16) for number in device.split(b":"))
    return FileMapping(start, end, int(offset, 16), os.makedev(major, minor), int(inode), procfs.mapped_path(path))


def _paths(pid: int, mapping: FileMapping) -> Iterator[Path]:
    """First the mapped file itself, even if it was replaced, which requires a capability; then the file at its path."""
    yield PROC / str(pid) / "map_files" / f"{mapping.start:x}-{mapping.end:x}"
    yield PROC / str(pid) / "root" / mapping.path.lstrip("/")


def open_mapped_file(pid: int, mapping: FileMapping) -> int:
    """A descriptor to read the file; -1 if the file is gone or the process has ended."""
    for path in _paths(pid, mapping):
        with suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return -1
