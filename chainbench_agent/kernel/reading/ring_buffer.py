"""Reads the ring buffer of events (Linux 5.8) with libbpf, which knows the memory barriers that it needs."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping

from chainbench_agent.abi.c_struct import CStruct
from chainbench_agent.bpf import libbpf
from chainbench_agent.catalog import Module
from chainbench_agent.loading import event_records
from chainbench_agent.loading.loader import MapFd

MAP = "cb_told"
KNOWN_RUNS = 64
"""Records are read in moments while anybody listens, so they are of the last run or the one before."""

CAUSES = ("held_back", "without_room")

_TELLING = CStruct(second="Q", told="Q", held_back="Q", without_room="Q")  # struct cb_telling of probes/events.h
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class Ring:
    """Used by one thread at a time.  Raises OSError with what the kernel said."""

    def __init__(self, maps: Mapping[str, MapFd], modules: Iterable[Module]) -> None:
        self._maps = maps
        self._kinds = event_records.kinds(modules)
        self._runs: dict[int, str] = {}
        self._records: list[bytes] = []
        self._callback = _Callback(self._take)  # stored, because libbpf calls it
        self._ring = libbpf.open_ring(maps[MAP].fd, self._callback)

    def know(self, run: int, run_id: str) -> None:
        """Set the id of the run that has this number in the kernel; from any thread, before the run begins."""
        self._runs[run] = run_id
        while len(self._runs) > KNOWN_RUNS:
            del self._runs[next(iter(self._runs))]

    def listen(self, *, on: bool) -> None:
        """Set whether handlers emit events."""
        libbpf.update(self._maps["cb_listening"].fd, 0, int(on).to_bytes(4, "little"))

    def poll(self, timeout_ms: int) -> list[event_records.Told]:
        """The events that were emitted, as soon as there are any."""
        libbpf.poll_ring(self._ring, timeout_ms)
        records, self._records = self._records, []
        return [event_records.decode(record, self._kinds, self._runs) for record in records]

    def dropped(self) -> dict[str, int]:
        """Events that were not emitted since the unit was loaded, by cause."""
        fd = self._maps["cb_telling"].fd
        raw = b"".join(libbpf.lookup_all_cpus(fd, _TELLING.size, kind) for kind in range(len(self._kinds) or 1))
        _, _, *sums = map(sum, zip(*_TELLING.iter_unpack(raw), strict=True))
        return dict(zip(CAUSES, sums, strict=True))

    def close(self) -> None:
        libbpf.close_ring(self._ring)

    def _take(self, _context: int, data: int, size: int) -> int:
        self._records.append(ctypes.string_at(data, size))
        return 0
