"""Maps of a module's own that are no metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chainbench_agent.catalog.names import CallStack


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """A map that only the kernel side uses: what is pending, and what happens when it is full.

    With `field`, it is no map but an array behind the metrics in the per-CPU struct.
    """

    name: str
    entries: int
    when_full: str
    field: bool = False
    option: str = ""
    """As in Keyed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stacks(Scratch):
    """A map of call stacks, MODULE_NAME: a `stacktrace`, or a hash whose keys (u64) the module makes itself.

    The stacks that a run needs are named when its evidence is built: `derive` finds them by `Names.frames`.
    """

    depth: int
    """Addresses of a stack, innermost first, 0 behind the last."""
    with_callee: bool = False
    """True: one more address follows, of the function that the innermost one called.

    It is named where it belongs to the scheduler or to a lock; see symbols/kernel_symbols.py.
    """
    needed: Callable[[Mapping[str, Any]], Iterable[CallStack]] | None = None
    """The stacks to name, by this module's values of the last sample; None: all in the map, of the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerCpu(Scratch):
    """A record for each CPU in an array MODULE_NAME of one entry: what the CPU is at, which no counter has yet.

    It is in the sample under its name, CPU → record; the module's `close` reads it.
    """

    entries: int = 1
    when_full: str = "an array: it cannot be"
    value: str
    """The C type of a record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTable(Scratch):
    """An array that the agent fills from what it knows of the host before each run, and that stays from run to run."""

    when_full: str = "an array: it cannot be"
    of: str
    """Its content: a key of TABLES in kernel/call_tables.py."""
