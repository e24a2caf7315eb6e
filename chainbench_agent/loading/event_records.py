"""Events that are emitted as they happen (probes/lib/events.h): their C text, and their records, decoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chainbench_agent.abi import command_name
from chainbench_agent.abi.c_struct import CStruct
from chainbench_agent.catalog import Event, Module

PAGES = 64
"""Size of the ring buffer: some 4,000 records; the kernel requires a power of two."""

PER_SECOND = 100
"""Events of a kind that each CPU emits in a second; further ones are counted."""

_RECORD = CStruct(  # struct cb_event_record of probes/lib/events.h
    at_ns="Q", value="Q", kind="I", tgid="I", run="I", pad="4x", comm="16s"
)
_EMITTING = ("cb_emit(ev, kind, tgid, value)", "cb_emit_current(ev, kind, value)")


@dataclass(frozen=True, slots=True)
class EventOptions:
    """Options of a unit that emits events.  `slow_io_ns`: a request or fsync that takes this long or longer is one."""

    slow_io_ns: int = 100_000_000

    @property
    def defines(self) -> dict[str, int]:
        """The options for C, as CB_<key>."""
        return {"EVENTS": 1, "SLOW_IO_NS": self.slow_io_ns}


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event.  `pid` 0: no process, or an unknown one.  `run_id`: the run it happened in; None: unknown."""

    at_ns: int
    name: str
    pid: int
    command: str
    details: dict[str, int]
    run_id: str | None = None


def kinds(modules: Iterable[Module]) -> tuple[tuple[Module, Event], ...]:
    """The events that a unit of these modules emits; the position is the kind in C."""
    return tuple((module, event) for module in modules for event in module.events)


def event_kinds_h(modules: Iterable[Module]) -> str:
    """`generated/event_kinds.h` of a BPF unit: MODULE_EVENT_NAME for each, and the sizes of the ring buffer."""
    names = [f"{module.name}_EVENT_{event.name}".upper() for module, event in kinds(modules)]
    sizes = {"EVENT_PAGES": PAGES, "EVENTS_PER_SECOND": PER_SECOND, "EVENT_KINDS": max(1, len(names))}
    lines = [f"#define {name} {number}" for number, name in enumerate(names)]
    return "\n".join([*lines, *(f"#define CB_{name} {size}" for name, size in sizes.items()), ""])


def events_h(*, emitted: bool) -> str:
    """`generated/events.h` of a BPF unit: where no events are emitted, cb_emit() is nothing, and costs nothing."""
    if emitted:
        return '#include "lib/events.h"\n'
    nothing = (f"#define {call} ((void)(value))" for call in _EMITTING)
    return "\n".join(['#include "generated/event_kinds.h"', "", *nothing, ""])


def decode(record: bytes, known: tuple[tuple[Module, Event], ...], runs: Mapping[int, str]) -> EventRecord:
    """`runs`: the kernel's number of a run → its id."""
    at_ns, value, kind, pid, run, comm = _RECORD.unpack(record[: _RECORD.size])
    module, event = known[kind]
    details = {event.value: value} if event.value else {}
    return EventRecord(at_ns, f"{module.name}.{event.name}", pid, command_name.decode(comm), details, runs.get(run))
