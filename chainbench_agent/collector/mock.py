"""Makes up data of the right shape where eBPF cannot run; every answer marks it as mock data.

Raw counts are made up from the declaration of each module, and become a section in the same way as measured ones, so
a new module needs no change here.  Equal labels give equal numbers, which grow with the length of the run.  Loss, cost
and cross-checks are left out, because only a measurement can know them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from random import Random
from typing import Final

from chainbench_agent.abi.histogram import HistogramCounts, lower_bound_ns, slot_of, upper_bound_ns
from chainbench_agent.catalog import HISTOGRAM_SLOTS, Counter, Distribution, Keyed, Metric, Module, Names, Procfs, Table
from chainbench_agent.catalog.selection import EVERYTHING, Selection
from chainbench_agent.collector.base import not_asked_for, option_states
from chainbench_agent.evidence.build import section
from chainbench_agent.evidence.metric_keys import reported_key
from chainbench_agent.evidence.model import Evidence, Labels, Run, Section, Target
from chainbench_agent.evidence.sample import Value
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.model.status import CollectorStatus, ModuleStatus
from chainbench_agent.probes import HOOKS

MOCK: Final = "mock"

SYSCALLS = ("futex", "fsync", "openat", "read", "write")
"""Clients look these up by name; everything else is called mock-0, mock-1, …"""

PER_TABLE = len(SYSCALLS)
"""Made-up entries per table or hash."""

NAMES = Names(
    tables={
        "calls": dict(enumerate(SYSCALLS)),
        "calls_32bit": {index: f"mock-{index}" for index in range(PER_TABLE)},
    }
)

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
        """Hold nothing, so release nothing."""


def _section(module: Module, run: Run, selection: Selection) -> Section:
    labels = [str(getattr(run, name)) for name in Labels.model_fields]
    counts = {
        metric.name: _made_up(metric, _random(*labels, module.name, metric.name), run.duration_ms / 1e3)
        for metric in (*module.per_cpu, *module.keyed, *module.per_disk, *module.procfs)
    }
    absent = not_asked_for(module, {hook.name: hook for hook in HOOKS}, selection.probes)
    sources = {key: MOCK for metric in module.reported if (key := reported_key(metric)) not in absent}
    return section(_with_made_up_names(module), counts, NAMES, absent, sources)


def _random(*seed: str) -> Random:
    return Random("\0".join(seed))  # noqa: S311 - no secret; it has to be repeatable


def _with_made_up_names(module: Module) -> Module:
    metrics = (replace(m, names=_made_up_name) if isinstance(m, Table) else m for m in module.metrics)
    return replace(module, metrics=tuple(metrics))


def _made_up_name(_names: Names, index: int) -> str:
    return f"mock-{index}"


def _made_up(metric: Metric, random: Random, seconds: float) -> Value:
    """A possible growth of `metric`; never zero, and never less in a longer run."""
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
    return {}  # C structs, whose layout only the module knows: as if nothing had been counted


def _number(metric: Metric, random: Random, seconds: float) -> int:
    """Some hundred events a second; for a time, some percent of the run."""
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
