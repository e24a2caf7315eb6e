"""A module: its question, its metrics and maps, and the functions that compute its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chainbench_agent.catalog.checks import Check, Role
from chainbench_agent.catalog.events import Event
from chainbench_agent.catalog.maps import HostTable, PerCpu, Scratch, Stacks
from chainbench_agent.catalog.metrics import (
    Counter,
    Derived,
    Distribution,
    Keyed,
    Metric,
    PerDisk,
    PmuCounters,
    Procfs,
    Table,
)
from chainbench_agent.catalog.names import Names
from chainbench_agent.catalog.open_time import OpenTime
from chainbench_agent.catalog.waits import BlockedTime


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One of the ten measuring units: what it asks, and what it counts."""

    name: str
    question: str
    metrics: tuple[Metric, ...]
    scratch: tuple[Scratch, ...] = ()
    events: tuple[Event, ...] = ()
    options: tuple[str, ...] = ()
    """Parts that must be named to be collected, as `module:option`; the hooks of an option say so."""
    section: str = ""
    """The evidence key, where it is not the module's name."""
    derive: Callable[[Mapping[str, Any], Names], dict[str, Any]] | None = None
    """Pure: the differences of this module's metrics, and the names of things → the Derived metrics.

    A derived key that is left out of the answer has no value in this run.
    """
    close: Callable[[Mapping[str, Any], OpenTime], dict[str, Any]] | None = None
    """Pure: the differences of this module's metrics, and what was still going on when the run ended → the metrics
    that change by that, with their new values.

    It closes the whole run, and each process with the threads that were open in it.
    """
    explain_waits: Callable[[Mapping[str, Any], Names], BlockedTime] | None = None
    """Pure: this module's closed differences → what threads were blocked in.  One module has it: the ledger of a
    target, and which of its threads hardly ran, are made of what this module counts.
    """
    roles: tuple[Role, ...] = ()
    """The meaning that figures of this module have across modules."""
    checks: tuple[Check, ...] = ()
    """The conditions between the figures of its section."""

    @property
    def section_key(self) -> str:
        return self.section or self.name

    @property
    def names(self) -> tuple[str, ...]:
        """The names that a selection may have: the module, and each of its options."""
        return (self.name, *(f"{self.name}:{option}" for option in self.options))

    @property
    def hooks(self) -> frozenset[str]:
        return frozenset(hook for metric in self.metrics for hook in metric.hooks)

    @property
    def per_cpu(self) -> tuple[Metric, ...]:
        """The metrics that live in the module's own per-CPU struct."""
        return tuple(m for m in self.metrics if isinstance(m, Counter | Table | Distribution))

    @property
    def per_process(self) -> tuple[Counter, ...]:
        """The main figures, which `top_processes` has for single processes; the most important first."""
        return tuple(m for m in self.metrics if isinstance(m, Counter) and m.per_process)

    @property
    def procfs(self) -> tuple[Procfs, ...]:
        return tuple(m for m in self.metrics if isinstance(m, Procfs))

    @property
    def reported(self) -> tuple[Metric, ...]:
        """The metrics that appear in the evidence."""
        return tuple(m for m in self.metrics if m.reported)

    @property
    def own_maps(self) -> tuple[str, ...]:
        """The maps that the C file declares, each as MODULE_<name>."""
        keyed, per_disk = (m.name for m in self.keyed), (m.name for m in self.per_disk)
        return (*keyed, *per_disk, *(s.name for s in self.scratch if not s.field))

    @property
    def stacks(self) -> tuple[Stacks, ...]:
        return tuple(s for s in self.scratch if isinstance(s, Stacks))

    @property
    def per_cpu_records(self) -> tuple[PerCpu, ...]:
        return tuple(s for s in self.scratch if isinstance(s, PerCpu))

    @property
    def host_tables(self) -> tuple[HostTable, ...]:
        return tuple(s for s in self.scratch if isinstance(s, HostTable))

    @property
    def pmu_counters(self) -> PmuCounters | None:
        return next((m for m in self.metrics if isinstance(m, PmuCounters)), None)

    def hooks_of(self, metric: Metric) -> tuple[str, ...]:
        """The hooks that a metric needs; those of a derived one are its sources'."""
        hooks = (*metric.hooks, *(hook for source in self.sources_of(metric) for hook in source.hooks))
        return tuple(dict.fromkeys(hooks))

    def sources_of(self, metric: Metric) -> tuple[Metric, ...]:
        """The metrics that a derived one is computed from; none for others."""
        return tuple(m for m in self.metrics if m.name in metric.of) if isinstance(metric, Derived) else ()

    @property
    def keyed(self) -> tuple[Keyed, ...]:
        return tuple(m for m in self.metrics if isinstance(m, Keyed))

    @property
    def per_disk(self) -> tuple[PerDisk, ...]:
        return tuple(m for m in self.metrics if isinstance(m, PerDisk))
