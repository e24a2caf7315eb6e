"""The CPU's own counters of cache and TLB misses.

For the time of a run there is one perf event per counter and CPU.  For the whole machine what they say at the end is
the answer.  For a target, probes/memory.c reads them where a thread of it enters a CPU and where it leaves; what such
a thread has on the clock when the run ends is added here.

They start just after the run has begun, and are read just before it ends, when the threads on the CPUs are still those
that memory.c saw enter.  So what is at work at either edge may lack some microseconds, and has nothing of others'.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from chainbench_agent.bpf import libbpf
from chainbench_agent.bpf.perf_events import enable, online_cpus, open_event
from chainbench_agent.evidence.sample import Sample, TaskState, Value
from chainbench_agent.host import procfs
from chainbench_agent.kernel.reading.map_decoding import ON_CPU
from chainbench_agent.loading import pmu_events
from chainbench_agent.loading.loader import MapFd
from chainbench_agent.probes.memory import COUNTERS

PROC = Path("/proc")

_VALUE = struct.Struct("=QQQ")  # struct bpf_perf_event_value, and what read(2) answers: value, enabled ns, running ns
_SPAN = struct.Struct(f"=II{3 * len(COUNTERS)}Q")  # struct memory_span
_PROCESSOR = 36  # of the fields behind the name in /proc/PID/stat


class Counters:
    """The events of one run after the other.  `mask`: as `hardware.available` said when the unit was compiled."""

    def __init__(self, maps: Mapping[str, MapFd], mask: int) -> None:
        self._maps = maps
        self._wanted = [index for index in range(len(COUNTERS)) if mask >> index & 1]
        self._fds: dict[tuple[int, int], int] = {}
        self._final: dict[tuple[int, int], tuple[int, ...]] = {}
        self._failure: OSError | None = None

    def open(self) -> None:
        """Make ready; nothing counts yet.  Raises OSError, and then nothing is left open."""
        self._final, self._failure = {}, None
        try:
            for index in self._wanted:
                _, kind, config = pmu_events.event_of(COUNTERS[index]) or pmu_events.UNKNOWN
                for cpu in online_cpus():
                    fd = open_event(kind, config, cpu=cpu, counting=True)
                    self._fds[index, cpu] = fd
                    libbpf.update(self._events, index * pmu_events.CPUS + cpu, fd.to_bytes(4, "little"))
        except OSError:
            self.close()
            raise

    def begin(self) -> None:
        for fd in self._fds.values():
            enable(fd)

    def end(self) -> None:
        """Read them; the run ends next, also if that fails: `complete` tells."""
        try:
            self._final = self._read()
        except OSError as error:
            self._failure = error

    def close(self) -> None:
        """The kernel keeps an event for as long as it is in the map."""
        while self._fds:
            (index, cpu), fd = self._fds.popitem()
            libbpf.delete(self._events, (index * pmu_events.CPUS + cpu).to_bytes(4, "little"))
            os.close(fd)

    def complete(self, sample: Sample, run: int, began_ns: int, *, targeted: bool) -> Sample:
        """`sample` with what only the events themselves can tell; it is added to what memory.c has counted.

        Where they cannot be read it comes back without the module.
        """
        if not self._fds or "memory" not in sample.modules:
            return sample
        try:
            return self._completed(sample, run, began_ns, targeted=targeted)
        except OSError as error:
            return sample.without("memory", error)

    def _completed(self, sample: Sample, run: int, began_ns: int, *, targeted: bool) -> Sample:
        if self._failure:
            raise self._failure
        now = self._final or self._read()
        counted = sample.modules["memory"]["counters"]
        table = list(counted) if targeted and isinstance(counted, tuple) else list(_NOTHING)
        since = (
            self._open_spans(sample, run, began_ns) if targeted else dict.fromkeys((cpu for _, cpu in now), _NOTHING)
        )
        for (index, cpu), values in now.items():
            if cpu in since:
                for part, value in enumerate(values):
                    # less than nothing: the thread came after the reading
                    table[part * len(COUNTERS) + index] += max(value - since[cpu][3 * index + part], 0)
        memory: dict[str, Value] = {**sample.modules["memory"], "counters": tuple(table)}
        return replace(sample, modules={**sample.modules, "memory": memory})

    def _open_spans(self, sample: Sample, run: int, began_ns: int) -> dict[int, tuple[int, ...]]:
        """CPU → what the counters stood at when the thread of the target entered that is on it."""
        spans = enumerate(_SPAN.iter_unpack(self._per_cpu("memory_span")))
        entered = {cpu: tuple(since) for cpu, (tid, of_run, *since) in spans if tid and of_run == run}
        switched = {cpu for cpu, (*_, of) in enumerate(ON_CPU.iter_unpack(self._per_cpu("cb_on_cpu"))) if of == run}
        working = {t.thread.tid for t in sample.tasks if t.state == TaskState.RUNNING and t.since_ns <= began_ns}
        stayed = _processors(working | {s.thread.tid for s in sample.members.sleepers if s.proc.state == "R"})
        return entered | dict.fromkeys(stayed - switched, _NOTHING)

    def _read(self) -> dict[tuple[int, int], tuple[int, ...]]:
        return {place: _VALUE.unpack(os.read(fd, _VALUE.size)) for place, fd in self._fds.items()}

    def _per_cpu(self, name: str) -> bytes:
        return libbpf.lookup_all_cpus(self._maps[name].fd, self._maps[name].value_size)

    @property
    def _events(self) -> int:
        return self._maps["cb_counter_events"].fd


_NOTHING = (0,) * 3 * len(COUNTERS)


def _processors(threads: Iterable[int]) -> set[int]:
    """The CPUs that these threads are on."""
    found = set()
    for tid in threads:
        with suppress(OSError):
            found.add(int(procfs.stat(PROC / str(tid)).fields[_PROCESSOR]))
    return found
