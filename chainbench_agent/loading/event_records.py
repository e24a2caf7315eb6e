"""What is told as it happens (probes/events.h): its C text, and what the records in the ring buffer say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chainbench_agent.abi import command_name
from chainbench_agent.abi.c_struct import CStruct
from chainbench_agent.catalog import Event, Module

PAGES = 64
"""Of the ring buffer: some 4,000 records; a power of two, as the kernel wants it."""

PER_SECOND = 100
"""Events of a kind that each CPU may tell in a second; further ones are counted."""

_RECORD = CStruct(  # struct cb_told of probes/events.h
    at_ns="Q", value="Q", kind="I", tgid="I", run="I", pad="4x", comm="16s"
)
_SILENT = ("cb_tell(ev, kind, tgid, value)", "cb_tell_current(ev, kind, value)")


@dataclass(frozen=True, slots=True)
class Telling:
    """That events are told, and from where on it is one.  `slow_io_ns`: of requests and fsyncs; 0 is each of them."""

    slow_io_ns: int = 100_000_000

    @property
    def defines(self) -> dict[str, int]:
        """What the C text is to know of it, as CB_<key>."""
        return {"EVENTS": 1, "SLOW_IO_NS": self.slow_io_ns}


@dataclass(frozen=True, slots=True)
class Told:
    """One event.  `pid` 0: of no process, or of an unknown one.  `run_id`: in which it happened; None if long ago."""

    at_ns: int
    name: str
    pid: int
    command: str
    details: dict[str, int]
    run_id: str | None = None


def kinds(modules: Iterable[Module]) -> tuple[tuple[Module, Event], ...]:
    """What can be told; the place is the number in C."""
    return tuple((module, event) for module in modules for event in module.events)


def text(modules: Iterable[Module], events_h: str) -> str:
    """With `events_h` empty, handlers tell nothing, and cost nothing."""
    named = [f"{module.name}_EVENT_{event.name}".upper() for module, event in kinds(modules)]
    lines = [f"#define {name} {number}" for number, name in enumerate(named)]
    if not events_h:
        return "\n".join([*lines, *(f"#define {call} ((void)(value))" for call in _SILENT), ""])
    sizes = {"PAGES": PAGES, "PER_SECOND": PER_SECOND, "KINDS": max(1, len(named))}
    return "\n".join([*lines, *(f"#define CB_TOLD_{name} {size}" for name, size in sizes.items()), events_h])


def decode(record: bytes, known: tuple[tuple[Module, Event], ...], runs: Mapping[int, str]) -> Told:
    """`runs`: the kernel's number of a run → its id."""
    at_ns, value, kind, pid, run, comm = _RECORD.unpack(record[: _RECORD.size])
    module, event = known[kind]
    details = {event.value: value} if event.value else {}
    return Told(at_ns, f"{module.name}.{event.name}", pid, command_name.decode(comm), details, runs.get(run))
