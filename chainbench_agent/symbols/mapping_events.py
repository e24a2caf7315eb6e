"""Records the mappings and forks of all processes during a run, with perf, to name addresses of ended processes.

There is a ring buffer per CPU, which is read only when the run ends.  Once it is full, later events are lost, and the
addresses that they would have named remain numbers.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from chainbench_agent.bpf import perf_events
from chainbench_agent.symbols.file_mappings import FileMapping

PAGES = 64
"""The size of a CPU's ring, a power of two: it has room for some 2,000 mappings, or 200 programs that start."""

_DUMMY = 9  # PERF_COUNT_SW_DUMMY: counts nothing, and has the records
_MMAP, _TASK, _MMAP2 = 1 << 8, 1 << 13, 1 << 23  # bits of perf_event_attr: executable mappings; forks; with inodes
_HEADER = struct.Struct("=IHH")  # struct perf_event_header
_FORK, _MAPPED = 7, 10  # PERF_RECORD_FORK, _MMAP2
_FORK_BODY = struct.Struct("=II")  # child, parent
_MAPPED_BODY = struct.Struct("=IIQQQIIQQII")  # pid, tid, addr, len, pgoff, maj, min, ino, ino_generation, prot, flags
_HEAD = 1024  # offset of data_head in struct perf_event_mmap_page: how many bytes were written


@dataclass(frozen=True, slots=True)
class MappingHistory:
    """`mapped`: process → its new mappings, the last one first; `parents`: process → the process that forked it."""

    mapped: Mapping[int, tuple[FileMapping, ...]] = field(default_factory=dict)
    parents: Mapping[int, int] = field(default_factory=dict)

    def of(self, pid: int, known: Mapping[int, tuple[FileMapping, ...]]) -> tuple[FileMapping, ...]:
        """All mappings that a process may have: its new ones, those before the run (`known`), and its parent's."""
        found: list[FileMapping] = []
        seen: set[int] = set()
        while pid and pid not in seen:
            seen.add(pid)
            found += (*self.mapped.get(pid, ()), *known.get(pid, ()))
            pid = self.parents.get(pid, 0)
        return tuple(found)


class MappingEvents:
    """A recorder, which may be opened and closed several times."""

    def __init__(self) -> None:
        self._rings: dict[int, mmap.mmap] = {}
        """Descriptor → ring."""

    def __bool__(self) -> bool:
        return bool(self._rings)

    def open(self) -> None:
        """Starts to record all processes.  If it raises OSError, nothing is recorded."""
        try:
            for cpu in perf_events.online_cpus():
                fd = perf_events.open_event(perf_events.SOFTWARE, _DUMMY, cpu=cpu, flags=_MMAP | _MMAP2 | _TASK)
                try:
                    self._rings[fd] = mmap.mmap(fd, (1 + PAGES) * mmap.PAGESIZE)
                except OSError:
                    os.close(fd)
                    raise
        except OSError:
            self.close()
            raise

    def read(self) -> MappingHistory:
        """The records so far."""
        return mapping_history(ring[: mmap.PAGESIZE * (1 + PAGES)] for ring in self._rings.values())

    def close(self) -> None:
        while self._rings:
            fd, ring = self._rings.popitem()
            ring.close()
            os.close(fd)


def mapping_history(rings: Iterable[bytes]) -> MappingHistory:
    """Decodes the records in `rings`, the memory of each ring with its first page."""
    mapped: dict[int, list[FileMapping]] = {}
    parents: dict[int, int] = {}
    for kind, body in (record for ring in rings for record in _records(ring)):
        if kind == _FORK:
            child, parent = _FORK_BODY.unpack_from(body)
            if child != parent:  # otherwise it is a thread
                parents[child] = parent
        elif kind == _MAPPED:
            pid, _, start, size, offset, major, minor, inode, *_ = _MAPPED_BODY.unpack_from(body)
            path = body[_MAPPED_BODY.size :].split(b"\0")[0]
            if path.startswith(b"/") and not path.startswith(b"//"):  # "//anon" is not a file
                found = FileMapping(start, start + size, offset, os.makedev(major, minor), inode, os.fsdecode(path))
                mapped.setdefault(pid, []).insert(0, found)
    return MappingHistory({pid: tuple(found) for pid, found in mapped.items()}, parents)


def _records(ring: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and body of each record, from the start of the ring, as nothing reads it meanwhile."""
    (written,) = struct.unpack_from("=Q", ring, _HEAD)
    at, end = mmap.PAGESIZE, mmap.PAGESIZE + written
    while at < end:
        kind, _, size = _HEADER.unpack_from(ring, at)
        yield kind, ring[at + _HEADER.size : at + size]
        at += size
