"""Finds the perf event of each PMU counter on this machine's CPU, and opens it to learn whether it can be used."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NamedTuple

from chainbench_agent.bpf import libbpf
from chainbench_agent.bpf.perf_events import HARDWARE, HW_CACHE, RAW, online_cpus, open_event
from chainbench_agent.probes import PMU_EVENTS

CPUINFO = Path("/proc/cpuinfo")
CPUS = 1024
"""MEMORY_CPUS of probes/memory.c."""


class Event(NamedTuple):
    """A perf event: its name in perf, and its type and config in struct perf_event_attr."""

    name: str
    kind: int
    config: int


UNKNOWN = Event("", RAW, 0)
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
# Haswell, Broadwell, Skylake, Ice Lake, Tiger Lake, Rocket Lake, Sapphire and Emerald Rapids.  Models with two
# kinds of cores are left out: a raw event means different things on their CPUs.
_L2_INTEL = Event("L2_RQSTS.MISS", RAW, 0x3F24)
_INTEL_MODELS = frozenset(bytes.fromhex("3c3f4546 3d474f56 4e555e8e9ea5a6 6a6c7d7e 8c8d a7 8fcf"))
_L2_AMD = Event("l2_cache_req_stat.ic_dc_miss_in_l2", RAW, 0x0964)
_AMD_FAMILIES = frozenset({0x17, 0x19, 0x1A})  # Zen 1 to 6


def event_of(counter: str) -> Event | None:
    """The event that counts this on this machine's CPU; None if no such event is known."""
    vendor, family, model = cpu_model()
    if vendor == "GenuineIntel" and counter in INTEL:
        return INTEL[counter]
    if counter == "l2_misses" and vendor == "GenuineIntel" and family == 6 and model in _INTEL_MODELS:
        return _L2_INTEL
    if counter == "l2_misses" and vendor == "AuthenticAMD" and family in _AMD_FAMILIES:
        return _L2_AMD
    return EVENTS.get(counter)


def cpu_model() -> tuple[str, int, int]:
    """Vendor, family and model; empty and zero on CPUs that have no such thing."""
    first = CPUINFO.read_text().split("\n\n")[0]
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    return found.get("vendor_id", ""), int(found.get("cpu family", 0)), int(found.get("model", 0))


def source_of(fact: str) -> tuple[str, ...]:
    """The perf events that a feature "counter:NAME" requires; empty for other features."""
    events = (event_of(counter) for counter in _behind(fact.removeprefix("counter:")) if fact.startswith("counter:"))
    return tuple(f"perf:{event.name}" for event in events if event)


def _behind(name: str) -> tuple[str, ...]:
    return {"cache_hits": PMU_EVENTS[:2], "any": ()}.get(name, (name,))


def lacking(name: str) -> str:
    """Why a counter cannot be used here; empty: it can.  "any": why not a single one can."""
    if name == "any":
        reasons = [lacking(counter) for counter in PMU_EVENTS]
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
        return "it requires CAP_PERFMON, or a lower kernel.perf_event_paranoid"
    return "this CPU does not count it, or the hypervisor hides it: a virtual machine needs a virtual PMU"


def available() -> int:
    """A bit for each of PMU_EVENTS that can be used: CB_COUNTERS in C."""
    return sum(1 << index for index, counter in enumerate(PMU_EVENTS) if not lacking(counter))
