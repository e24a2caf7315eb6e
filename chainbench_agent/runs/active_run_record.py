"""The active-run record: which run is on, in memory that outlives a process that is killed in it."""

from __future__ import annotations

import logging
import mmap
import struct

_LENGTH = struct.Struct("=H")

log = logging.getLogger(__name__)


class ActiveRunRecord:
    """One line in shared memory, made before the worker is forked.  It is whole or empty whenever the worker dies."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def write(self, run: str) -> None:
        data = run.encode()[: mmap.PAGESIZE - _LENGTH.size]
        self.wipe()
        self._page[_LENGTH.size : _LENGTH.size + len(data)] = data
        self._page[: _LENGTH.size] = _LENGTH.pack(len(data))

    def wipe(self) -> None:
        self._page[: _LENGTH.size] = _LENGTH.pack(0)

    def take(self) -> str:
        """Wipe the record and say what happened to its run; empty if it has none."""
        (length,) = _LENGTH.unpack(self._page[: _LENGTH.size])
        if not length:
            return ""
        run = self._page[_LENGTH.size : _LENGTH.size + length].decode(errors="ignore")
        self.wipe()
        log.error("run %s was lost: the process that collected it died", run)
        return f"run {run} was lost: the process that collected it died"
