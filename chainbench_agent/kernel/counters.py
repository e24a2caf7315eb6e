"""The CPU's own counters of cache and TLB misses.

For the time of a run there is one perf event per counter and CPU.  For the whole machine what they say at the end is
the answer.  For a target, probes/memory.c reads them where a thread of it enters a CPU and where it leaves; what such
a thread has on the clock when the run ends is added here.

They start just after the run has begun, and are read just before it ends, when the threads on the CPUs are still those
that memory.c saw enter.  So what is at work at either edge may lack some microseconds, and has nothing of others'.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from chainbench_agent.evidence.sample import Sample, TaskState, Value
from chainbench_agent.kernel import libbpf
from chainbench_agent.kernel.loader import MapFd
from chainbench_agent.kernel.perf_events import HARDWARE, HW_CACHE, RAW, enable, online_cpus, open_event
from chainbench_agent.probes.memory import COUNTERS

CPUINFO = Path("/proc/cpuinfo")
PROC = Path("/proc")
CPUS = 1024
"""MEMORY_CPUS of probes/memory.c."""

_VALUE = struct.Struct("=QQQ")  # struct bpf_perf_event_value, and what read(2) answers: value, enabled ns, running ns
_SPAN = struct.Struct(f"=II{3 * len(COUNTERS)}Q")  # struct memory_span
_ON_CPU = struct.Struct("=II")  # struct cb_on_cpu of probes/task.h
_PROCESSOR = 36  # of the fields behind the name in /proc/PID/stat


class Event(NamedTuple):
    """By perf's name for it, and as struct perf_event_attr has it."""

    name: str
    kind: int
    config: int


_UNKNOWN = Event("", RAW, 0)
_READ_MISSED = 1 << 16  # PERF_COUNT_HW_CACHE_RESULT_MISS << 16; _OP_READ and _RESULT_ACCESS are 0
EVENTS = {
    "cache_references": Event("LLC-loads", HW_CACHE, 2),
    "cache_misses": Event("LLC-load-misses", HW_CACHE, 2 | _READ_MISSED),
    "l1d_misses": Event("L1-dcache-load-misses", HW_CACHE, 0 | _READ_MISSED),
    "dtlb_misses": Event("dTLB-load-misses", HW_CACHE, 3 | _READ_MISSED),
    "itlb_misses": Event("iTLB-load-misses", HW_CACHE, 4 | _READ_MISSED),
}

INTEL = {
    # the architectural events LONGEST_LAT_CACHE.*: the last level by definition (Intel SDM, volume 3, 20.2.1.2)
    "cache_references": Event("cache-references", HARDWARE, 2),
    "cache_misses": Event("cache-misses", HARDWARE, 3),
}

# The raw events of L2 misses, with the models they are documented for: Linux, tools/perf/pmu-events/arch/x86.
# Haswell, Broadwell, Skylake, Ice Lake, Tiger Lake, Rocket Lake, Sapphire and Emerald Rapids; none with two kinds of
# cores, where a raw event means different things on different CPUs.
_L2_INTEL = Event("L2_RQSTS.MISS", RAW, 0x3F24)
_INTEL_MODELS = frozenset(bytes.fromhex("3c3f4546 3d474f56 4e555e8e9ea5a6 6a6c7d7e 8c8d a7 8fcf"))
_L2_AMD = Event("l2_cache_req_stat.ic_dc_miss_in_l2", RAW, 0x0964)
_AMD_FAMILIES = frozenset({0x17, 0x19, 0x1A})  # Zen 1 to 6


def event_of(counter: str) -> Event | None:
    """What counts it on this machine's CPU; None if that is not known."""
    vendor, family, model = cpu_model()
    if vendor == "GenuineIntel" and counter in INTEL:
        return INTEL[counter]
    if counter == "l2_misses" and vendor == "GenuineIntel" and family == 6 and model in _INTEL_MODELS:
        return _L2_INTEL
    if counter == "l2_misses" and vendor == "AuthenticAMD" and family in _AMD_FAMILIES:
        return _L2_AMD
    return EVENTS.get(counter)


def cpu_model() -> tuple[str, int, int]:
    """Vendor, family and model; empty and zero where there is no such thing."""
    first = CPUINFO.read_text().split("\n\n")[0]
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    return found.get("vendor_id", ""), int(found.get("cpu family", 0)), int(found.get("model", 0))


def source_of(fact: str) -> tuple[str, ...]:
    """The perf events behind a fact "counter:NAME"; none behind others."""
    events = (event_of(counter) for counter in _behind(fact.removeprefix("counter:")) if fact.startswith("counter:"))
    return tuple(f"perf:{event.name}" for event in events if event)


def _behind(name: str) -> tuple[str, ...]:
    return {"cache_hits": COUNTERS[:2], "any": ()}.get(name, (name,))


def lacking(name: str) -> str:
    """Why a counter cannot be had here; empty: it can.  "any": why none of them can."""
    if name == "any":
        reasons = [lacking(counter) for counter in COUNTERS]
        return "" if "" in reasons else reasons[0]
    return next(filter(None, map(_lacking, _behind(name))), "")


def _lacking(counter: str) -> str:
    event = event_of(counter)
    if event is None:
        vendor, family, model = cpu_model()
        return f"no event is known that counts this on this CPU ({vendor or 'no x86'}, family {family}, model {model})"
    if libbpf.possible_cpus() > CPUS:
        return f"more than {CPUS} CPUs are not provided for"
    try:
        for cpu in online_cpus():
            os.close(open_event(event.kind, event.config, cpu=cpu))
    except OSError as error:
        return f"perf event {event.name}: {error.strerror}; {_remedy(error.errno or 0)}"
    return ""


def _remedy(code: int) -> str:
    if code in (errno.EACCES, errno.EPERM):
        return "it takes CAP_PERFMON, or a lower kernel.perf_event_paranoid"
    return "this CPU does not count it, or the hypervisor hides it: a virtual machine needs a virtual PMU"


def available() -> int:
    """A bit for each of COUNTERS that can be had: CB_COUNTERS in C."""
    return sum(1 << index for index, counter in enumerate(COUNTERS) if not lacking(counter))


class Counters:
    """The events of one run after the other.  `mask`: as `available` said when the unit was compiled."""

    def __init__(self, maps: Mapping[str, MapFd], mask: int) -> None:
        self._maps = maps
        self._wanted = [index for index in range(len(COUNTERS)) if mask >> index & 1]
        self._fds: dict[tuple[int, int], int] = {}
        self._final: dict[tuple[int, int], tuple[int, ...]] = {}

    def open(self) -> None:
        """Make ready; nothing counts yet.  Raises OSError, and then nothing is left open."""
        self._final = {}
        try:
            for index in self._wanted:
                _, kind, config = event_of(COUNTERS[index]) or _UNKNOWN
                for cpu in online_cpus():
                    fd = open_event(kind, config, cpu=cpu, counting=True)
                    self._fds[index, cpu] = fd
                    libbpf.update(self._events, index * CPUS + cpu, fd.to_bytes(4, "little"))
        except OSError:
            self.close()
            raise

    def begin(self) -> None:
        for fd in self._fds.values():
            enable(fd)

    def end(self) -> None:
        """Read them; the run ends next."""
        self._final = self._read()

    def close(self) -> None:
        """The kernel keeps an event for as long as it is in the map."""
        while self._fds:
            (index, cpu), fd = self._fds.popitem()
            libbpf.delete(self._events, (index * CPUS + cpu).to_bytes(4, "little"))
            os.close(fd)

    def complete(self, sample: Sample, run: int, began_ns: int, *, targeted: bool) -> Sample:
        """`sample` with what only the events themselves can tell; it is added to what memory.c has counted."""
        if not self._fds:
            return sample
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
        switched = {cpu for cpu, (_, of) in enumerate(_ON_CPU.iter_unpack(self._per_cpu("cb_on_cpu"))) if of == run}
        working = {t.thread.tid for t in sample.tasks if t.state == TaskState.RUNNING and t.since_ns <= began_ns}
        stayed = _processors(working | {s.thread.tid for s in sample.members.sleepers if s.running})
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
            found.add(int((PROC / str(tid) / "stat").read_text().rpartition(")")[2].split()[_PROCESSOR]))
    return found
