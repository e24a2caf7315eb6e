"""What processes mapped and forked during a run, as the kernel tells perf: so that those which have ended have names.

One ring per CPU, which is only read at the end: when it is full, what comes later is not known, and an address is told
where a name could have been.
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
"""Of one CPU's ring, a power of two: some 2,000 mappings, as 200 programs have that are started."""

_DUMMY = 9  # PERF_COUNT_SW_DUMMY: counts nothing, and has the records
_MMAP, _TASK, _MMAP2 = 1 << 8, 1 << 13, 1 << 23  # bits of perf_event_attr: executable mappings; forks; with inodes
_HEADER = struct.Struct("=IHH")  # struct perf_event_header
_FORK, _MAPPED = 7, 10  # PERF_RECORD_FORK, _MMAP2
_FORK_BODY = struct.Struct("=II")  # child, parent
_MAPPED_BODY = struct.Struct("=IIQQQIIQQII")  # pid, tid, addr, len, pgoff, maj, min, ino, ino_generation, prot, flags
_HEAD = 1024  # of data_head in struct perf_event_mmap_page: how many bytes were written


@dataclass(frozen=True, slots=True)
class MappingHistory:
    """`mapped`: process → what it mapped, the last first; `parents`: process → who forked it."""

    mapped: Mapping[int, tuple[FileMapping, ...]] = field(default_factory=dict)
    parents: Mapping[int, int] = field(default_factory=dict)

    def of(self, pid: int, known: Mapping[int, tuple[FileMapping, ...]]) -> tuple[FileMapping, ...]:
        """All that may be in a process: its own, what it had before the run (`known`), and what it was forked with."""
        found: list[FileMapping] = []
        seen: set[int] = set()
        while pid and pid not in seen:
            seen.add(pid)
            found += (*self.mapped.get(pid, ()), *known.get(pid, ()))
            pid = self.parents.get(pid, 0)
        return tuple(found)


class MappingEvents:
    """Closed until it is opened; may be opened again."""

    def __init__(self) -> None:
        self._rings: dict[int, mmap.mmap] = {}
        """Descriptor → its ring."""

    def __bool__(self) -> bool:
        return bool(self._rings)

    def open(self) -> None:
        """Begin to record, of all processes.  Raises OSError, and then nothing is recorded."""
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
        """What was recorded so far."""
        return mapping_history(ring[: mmap.PAGESIZE * (1 + PAGES)] for ring in self._rings.values())

    def close(self) -> None:
        while self._rings:
            fd, ring = self._rings.popitem()
            ring.close()
            os.close(fd)


def mapping_history(rings: Iterable[bytes]) -> MappingHistory:
    """`rings`: their memory, the first page too."""
    mapped: dict[int, list[FileMapping]] = {}
    parents: dict[int, int] = {}
    for kind, body in (record for ring in rings for record in _records(ring)):
        if kind == _FORK:
            child, parent = _FORK_BODY.unpack_from(body)
            if child != parent:  # else it is a thread
                parents[child] = parent
        elif kind == _MAPPED:
            pid, _, start, size, offset, major, minor, inode, *_ = _MAPPED_BODY.unpack_from(body)
            path = body[_MAPPED_BODY.size :].split(b"\0")[0]
            if path.startswith(b"/") and not path.startswith(b"//"):  # "//anon" is none
                found = FileMapping(start, start + size, offset, os.makedev(major, minor), inode, os.fsdecode(path))
                mapped.setdefault(pid, []).insert(0, found)
    return MappingHistory({pid: tuple(found) for pid, found in mapped.items()}, parents)


def _records(ring: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and body, from the beginning: nobody has taken any out."""
    (written,) = struct.unpack_from("=Q", ring, _HEAD)
    at, end = mmap.PAGESIZE, mmap.PAGESIZE + written
    while at < end:
        kind, _, size = _HEADER.unpack_from(ring, at)
        yield kind, ring[at + _HEADER.size : at + size]
        at += size
