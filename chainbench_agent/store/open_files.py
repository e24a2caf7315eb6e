"""Notices that the files of a database are no longer those that were opened: removed, or replaced under the agent.

A file that was unlinked can still be written to, and everything in it is gone with the process.
"""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress
from pathlib import Path

Identity = tuple[int, int]
"""Device and inode."""

_NO_SHARED_MAPS = {errno.ENODEV, errno.EINVAL, errno.EACCES, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP}


class OpenFiles:
    """The files that a database consists of, as they were when it was opened."""

    def __init__(self, path: Path, suffixes: tuple[str, ...] = ("", "-wal", "-shm", ".lock")) -> None:
        self._path = path
        self._suffixes = suffixes
        self._opened: dict[str, Identity] = {}

    def remember(self) -> None:
        """From now on compare with the files that are there now."""
        found = {suffix: identity(self._file(suffix)) for suffix in self._suffixes}
        self._opened = {suffix: one for suffix, one in found.items() if one}

    def forget(self) -> None:
        self._opened = {}

    def displaced(self) -> dict[str, str]:
        """Suffix → `removed` or `replaced`, of those that are no longer what was opened."""
        gone = {}
        for suffix, opened in self._opened.items():
            if (now := identity(self._file(suffix))) != opened:
                gone[suffix] = "replaced" if now else "removed"
        return gone

    def remove_own_log(self) -> None:
        """Remove the write-ahead log that belonged to the file which was opened: SQLite would apply it to another."""
        for suffix in ("-wal", "-shm"):
            if identity(self._file(suffix)) == self._opened.get(suffix, ()):
                with suppress(OSError):
                    self._file(suffix).unlink()

    def _file(self, suffix: str) -> Path:
        return Path(f"{self._path}{suffix}")


def identity(file: Path) -> Identity | None:
    """None if it is not there, or cannot be looked at."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def has_shared_maps(path: Path) -> bool:
    """Whether files beside `path` can be mapped as shared memory, which a write-ahead log takes.

    OSError if no file can be made there.

    9p, virtiofs and FUSE file systems often cannot; it is tried, because the same file system can be mounted both ways.
    """
    trial = Path(f"{path}.map-{os.getpid()}")
    fd = os.open(trial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED).close()
    except OSError as error:
        if error.errno not in _NO_SHARED_MAPS:
            raise
        return False
    finally:
        os.close(fd)
        with suppress(OSError):
            trial.unlink()
    return True
