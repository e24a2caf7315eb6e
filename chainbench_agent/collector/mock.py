"""Made-up data of the right shape, served where eBPF cannot run, and marked as such everywhere.

Every module of the catalogue is there without knowing about this file: raw counts are made up from its
declaration and become a section in the same way as measured ones.  Equal labels give equal numbers, which
grow with the length of the run.  Nothing is claimed that only a measurement can know: no loss, no cost, no
cross-check.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from random import Random
from typing import Final

from chainbench_agent.abi.histogram import lower_bound_ns, slot_of, upper_bound_ns
from chainbench_agent.catalog import HISTOGRAM_SLOTS, Counter, Distribution, Keyed, Metric, Module, Names, Procfs, Table
from chainbench_agent.catalog.selection import EVERYTHING, Selection
from chainbench_agent.collector.base import not_asked_for, option_states
from chainbench_agent.evidence.build import section
from chainbench_agent.evidence.metric_keys import reported_key
from chainbench_agent.evidence.model import Evidence, Labels, Run, Section, Target
from chainbench_agent.evidence.sample import HistogramCounts, Value
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.model.status import CollectorStatus, ModuleStatus
from chainbench_agent.probes import HOOKS

MOCK: Final = "mock"

SYSCALLS = ("futex", "fsync", "openat", "read", "write")
"""Consumers look these up by name; everything else is called mock-0, mock-1, …"""

PER_TABLE = len(SYSCALLS)
"""How many entries of a table or a hash are made up."""

LATENCY_WEIGHTS = (1, 4, 9, 6, 3, 1)
"""Observations from 1 µs upwards, by factors of four."""


class MockCollector:
    """See base.Collector.  `reason` and `remedy`: why eBPF cannot run here, and what would change that."""

    def __init__(
        self,
        reason: str,
        remedy: str,
        catalog: Iterable[Module],
        details: Mapping[str, str] | None = None,
        options: Collection[str] = (),
    ) -> None:
        self._reason = reason
        self._target = Target()
        self._selection = EVERYTHING
        self._remedy = remedy
        self._catalog = tuple(catalog)
        self._details = dict(details or {})
        self._options = options

    ring = None  # nothing happens

    def start(self, request: RunRequest, run_id: str = "") -> None:
        """Nothing to begin: the numbers depend only on the run."""
        del run_id
        self._target, self._selection = request.target, request.selection

    def target_has_ended(self) -> bool:
        return False

    def stop(self) -> None:
        """See start."""

    def evidence(self, run: Run) -> Evidence:
        return Evidence(
            available=False,
            source=MOCK,
            reason=self._reason,
            run=run,
            target=self._target,
            sections={
                m.section_key: _section(m, run, self._selection)
                for m in self._catalog
                if self._selection.collects(m.name)
            },
        )

    def status(self) -> CollectorStatus:
        modules = [
            ModuleStatus(m.name, "down", self._reason, options=option_states(m, self._options, "down"))
            for m in self._catalog
        ]
        return CollectorStatus(MOCK, modules, reason=self._reason, remedy=self._remedy, details=self._details)

    def close(self) -> None:
        """Nothing is held."""


def _section(module: Module, run: Run, selection: Selection) -> Section:
    labels = [str(getattr(run, name)) for name in Labels.model_fields]
    counts = {
        metric.name: _made_up(metric, _random(*labels, module.name, metric.name), run.duration_ms / 1e3)
        for metric in (*module.per_cpu, *module.keyed, *module.per_disk, *module.procfs)
    }
    absent = not_asked_for(module, {hook.name: hook for hook in HOOKS}, selection.probes)
    sources = {key: MOCK for metric in module.reported if (key := reported_key(metric)) not in absent}
    return section(module, counts, _names(module), absent, sources)


def _random(*seed: str) -> Random:
    return Random("\0".join(seed))  # noqa: S311 - no secret; it has to be repeatable


def _names(module: Module) -> Names:
    tables = {metric.names for metric in module.per_cpu if isinstance(metric, Table)}
    names = {index: f"mock-{index}" for index in range(PER_TABLE)}
    return Names(
        tables=dict.fromkeys(tables, names) | {"calls": dict(enumerate(SYSCALLS))},
        stacks={},
        throttled_before={},
        throttled_after={},
    )


def _made_up(metric: Metric, random: Random, seconds: float) -> Value:
    """What `metric` could have grown by; never zero, and never less in a longer run."""
    match metric:
        case Distribution():
            return _distribution(random, seconds)
        case Table(entries=entries):
            return tuple(_number(metric, random, seconds) if i < PER_TABLE else 0 for i in range(entries))
        case Counter() | Procfs():
            return _number(metric, random, seconds)
        case Keyed(key=key, value="u64") if length := re.fullmatch(r"char\[(\d+)\]", key):
            names = (f"mock-{i}".encode().ljust(int(length[1]), b"\0") for i in range(PER_TABLE))
            return {name: _number(metric, random, seconds).to_bytes(8, "little") for name in names}
    return {}  # C structs, whose layout is the module's own: as if nothing had come in


def _number(metric: Metric, random: Random, seconds: float) -> int:
    """Some hundred events a second; of a time, some percent of the run."""
    per_second = random.uniform(1e7, 1e8) if metric.name.endswith("_ns") else random.uniform(50, 500)
    return 1 + int(per_second * seconds)


def _distribution(random: Random, seconds: float) -> HistogramCounts:
    per_second = random.uniform(5, 50)
    slots = [0] * HISTOGRAM_SLOTS
    total_ns = 0
    for power, weight in enumerate(LATENCY_WEIGHTS):
        slot = slot_of(1000 * 4**power)
        slots[slot] = 1 + int(weight * per_second * seconds)
        total_ns += slots[slot] * upper_bound_ns(slot)
    used = [slot for slot, count in enumerate(slots) if count]
    return HistogramCounts(tuple(slots), total_ns, lower_bound_ns(used[0]) + 1, upper_bound_ns(used[-1]))
