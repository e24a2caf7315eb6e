"""The files whose code a process has mapped, from /proc/PID/maps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from chainbench_agent.host import procfs

PROC = Path("/proc")


class FileMapping(NamedTuple):
    """A file's code in a process.  `offset`: in the file, of what lies at `start`; `device`: as stat(2) numbers it."""

    start: int
    end: int
    offset: int
    device: int
    inode: int
    path: str
    """In the process's own mount namespace, and " (deleted)" behind it if it is no longer there."""


def read_mappings(pid: int) -> tuple[FileMapping, ...]:
    """The files that a process runs code of; none if it is gone."""
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
    """First the very file that is mapped, also if it was replaced; that needs CAP_SYS_ADMIN or so."""
    yield PROC / str(pid) / "map_files" / f"{mapping.start:x}-{mapping.end:x}"
    yield PROC / str(pid) / "root" / mapping.path.lstrip("/")


def open_mapped_file(pid: int, mapping: FileMapping) -> int:
    """A descriptor of the file, to read; -1 if it, or the process, is gone."""
    for path in _paths(pid, mapping):
        with suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return -1
