"""Which run is on, in memory that outlives the process which collects it: the next one says what became of it."""

from __future__ import annotations

import logging
import mmap
import struct

_LENGTH = struct.Struct("=H")

log = logging.getLogger(__name__)


class ActiveRunRecord:
    """One line.  Made before the processes part; whoever is killed at whatever moment leaves it whole, or empty."""

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
        """What became of the run that stands here; empty if none does, as then."""
        (length,) = _LENGTH.unpack(self._page[: _LENGTH.size])
        if not length:
            return ""
        run = self._page[_LENGTH.size : _LENGTH.size + length].decode(errors="ignore")
        self.wipe()
        log.error("run %s was lost: the process that collected it died", run)
        return f"run {run} was lost: the process that collected it died"
