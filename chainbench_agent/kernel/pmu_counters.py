"""Opens and reads the CPUs' own counters (PMU counters), of cache and TLB misses for example.

During a run there is one perf event for each counter and CPU.  For the whole machine their values at the end are the
figures.  For a target, the module that declares the counters reads them where one of its threads enters a CPU and
where it leaves; what such a thread has counted since it entered is added here when the run ends.

They start just after the run has begun, and are read just before it ends, when the threads on the CPUs are still those
that the module saw enter.  So what runs at either edge may lack some microseconds, and has nothing of other threads.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from chainbench_agent.bpf import libbpf
from chainbench_agent.bpf.perf_events import enable, online_cpus, open_event
from chainbench_agent.catalog import Module, PmuCounters
from chainbench_agent.evidence.sample import OpenInterval, Sleeper, TaskState, Value
from chainbench_agent.host import procfs
from chainbench_agent.kernel.reading.current_run import Current
from chainbench_agent.kernel.reading.map_decoding import ON_CPU
from chainbench_agent.loading import pmu_events
from chainbench_agent.loading.loader import MapFd

PROC = Path("/proc")

_VALUE = struct.Struct("=QQQ")  # struct bpf_perf_event_value, and what read(2) answers: value, enabled ns, running ns
_PROCESSOR = 36  # of the fields behind the name in /proc/PID/stat


class OpenCounters:
    """The events of one run after the other.  `mask`: as `pmu_events.available` said when the unit was compiled."""

    def __init__(self, maps: Mapping[str, MapFd], modules: Iterable[Module], mask: int) -> None:
        """Nothing is ever counted if none of the loaded `modules` declares PmuCounters."""
        self._maps = maps
        self.module, self._declared = _declared(modules)
        """`module`: the name of the one that declares them; empty if none does."""
        self._events = self._declared.events if self._declared else ()
        self._wanted = [index for index in range(len(self._events)) if mask >> index & 1]
        self._fds: dict[tuple[int, int], int] = {}
        self._final: dict[tuple[int, int], tuple[int, ...]] = {}
        self._failure: OSError | None = None

    def open(self) -> None:
        """Make ready; nothing counts yet.  Raises OSError, and then nothing is left open."""
        self._final, self._failure = {}, None
        try:
            for index in self._wanted:
                _, kind, config = pmu_events.event_of(self._events[index]) or pmu_events.UNKNOWN
                for cpu in online_cpus():
                    fd = open_event(kind, config, cpu=cpu, counting=True)
                    self._fds[index, cpu] = fd
                    libbpf.update(self._event_map, index * pmu_events.CPUS + cpu, fd.to_bytes(4, "little"))
        except OSError:
            self.close()
            raise

    def begin(self) -> None:
        for fd in self._fds.values():
            enable(fd)

    def end(self) -> None:
        """Read them.  The run ends even if this fails: `added` raises the error."""
        try:
            self._final = self._read()
        except OSError as error:
            self._failure = error

    def close(self) -> None:
        """The kernel keeps an event for as long as it is in the map."""
        while self._fds:
            (index, cpu), fd = self._fds.popitem()
            libbpf.delete(self._event_map, (index * pmu_events.CPUS + cpu).to_bytes(4, "little"))
            os.close(fd)

    def added(
        self,
        values: Mapping[str, Value],
        tasks: Iterable[OpenInterval],
        sleepers: Iterable[Sleeper],
        current: Current,
    ) -> dict[str, Value]:
        """The declaring module's `values`, with what only the events themselves know.  Raises OSError."""
        if not self._fds or self._declared is None:
            return {**values}
        if self._failure:
            raise self._failure
        now = self._final or self._read()
        size, counted = len(self._events), values[self._declared.name]
        nothing = (0,) * 3 * size
        table = list(counted) if current.targeted and isinstance(counted, tuple) else list(nothing)
        since = dict.fromkeys((cpu for _, cpu in now), nothing)
        if current.targeted:
            since = self._open_spans(values, _at_work(tasks, sleepers, current.began_ns), current.run)
        for (index, cpu), parts in now.items():
            if cpu in since:
                for part, value in enumerate(parts):
                    # less than nothing: the thread came after the reading
                    table[part * size + index] += max(value - since[cpu][3 * index + part], 0)
        return {**values, self._declared.name: tuple(table)}

    def _open_spans(self, values: Mapping[str, Value], at_work: set[int], run: int) -> dict[int, tuple[int, ...]]:
        """CPU → what the counters stood at when the thread of the target entered that is on it.

        `at_work`: threads that have had their CPU since the run began, if that CPU made no switch either.
        """
        records = values[self._declared.span] if self._declared else {}
        layout = span_layout(len(self._events))
        spans = {
            int.from_bytes(cpu, "little"): layout.unpack(record)
            for cpu, record in (records.items() if isinstance(records, Mapping) else ())
        }
        entered = {cpu: tuple(since) for cpu, (tid, of_run, *since) in spans.items() if tid and of_run == run}
        switched = {cpu for cpu, (*_, of) in enumerate(ON_CPU.iter_unpack(self._on_cpu())) if of == run}
        stayed = _processors(at_work) - switched
        return entered | dict.fromkeys(stayed, (0,) * 3 * len(self._events))

    def _read(self) -> dict[tuple[int, int], tuple[int, ...]]:
        return {place: _VALUE.unpack(os.read(fd, _VALUE.size)) for place, fd in self._fds.items()}

    def _on_cpu(self) -> bytes:
        table = self._maps["cb_on_cpu"]
        return libbpf.lookup_all_cpus(table.fd, table.value_size)

    @property
    def _event_map(self) -> int:
        return self._maps["cb_counter_events"].fd


def _declared(modules: Iterable[Module]) -> tuple[str, PmuCounters | None]:
    return next(((module.name, module.pmu_counters) for module in modules if module.pmu_counters), ("", None))


def span_layout(events: int) -> struct.Struct:
    """A record of the PerCpu map that PmuCounters.span names: tid, run, and three words for each event."""
    return struct.Struct(f"=II{3 * events}Q")


def _at_work(tasks: Iterable[OpenInterval], sleepers: Iterable[Sleeper], began_ns: int) -> set[int]:
    """The threads that may have run without a switch since the run began."""
    running = {task.thread.tid for task in tasks if task.state == TaskState.RUNNING and task.since_ns <= began_ns}
    return running | {sleeper.thread.tid for sleeper in sleepers if sleeper.proc.state == "R"}


def _processors(threads: Iterable[int]) -> set[int]:
    """The CPUs that these threads are on."""
    found = set()
    for tid in threads:
        with suppress(OSError):
            found.add(int(procfs.stat(PROC / str(tid)).fields[_PROCESSOR]))
    return found
