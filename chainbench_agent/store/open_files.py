"""Detects that the files of an open database were removed or replaced.

A file that was unlinked can still be written to, but everything in it is lost when the process ends.
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
    """The files of a database, as they were when it was opened."""

    def __init__(self, path: Path, suffixes: tuple[str, ...] = ("", "-wal", "-shm", ".lock")) -> None:
        self._path = path
        self._suffixes = suffixes
        self._opened: dict[str, Identity] = {}

    def remember(self) -> None:
        """Compare with the files that exist now, from now on."""
        found = {suffix: identity(self._file(suffix)) for suffix in self._suffixes}
        self._opened = {suffix: one for suffix, one in found.items() if one}

    def forget(self) -> None:
        self._opened = {}

    def displaced(self) -> dict[str, str]:
        """Suffix → `removed` or `replaced`, for files that are no longer those that were opened."""
        gone = {}
        for suffix, opened in self._opened.items():
            if (now := identity(self._file(suffix))) != opened:
                gone[suffix] = "replaced" if now else "removed"
        return gone

    def remove_own_log(self) -> None:
        """Remove the write-ahead log of the file that was opened: SQLite would apply it to the new file."""
        for suffix in ("-wal", "-shm"):
            if identity(self._file(suffix)) == self._opened.get(suffix, ()):
                with suppress(OSError):
                    self._file(suffix).unlink()

    def _file(self, suffix: str) -> Path:
        return Path(f"{self._path}{suffix}")


def identity(file: Path) -> Identity | None:
    """Device and inode of a file; None if it does not exist, or its directory cannot be read."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def has_shared_maps(path: Path) -> bool:
    """Whether files next to `path` can be mapped as shared memory, which a write-ahead log requires.

    OSError if no file can be made there.

    9p, virtiofs and FUSE often cannot map files; a file is tried, because it depends on how they are mounted.
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
