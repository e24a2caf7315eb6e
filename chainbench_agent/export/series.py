"""What a metric is called in Prometheus and how it is counted there: derived from its declaration.

    on_cpu_ns           Counter of module cpu   chainbench_cpu_on_cpu_seconds_total
    cpu_migrations      Counter of module cpu   chainbench_cpu_migrations_total
    softirqs            Table of module cpu     chainbench_cpu_softirqs_total{vector}
    wakeup_latency_ns   Distribution            chainbench_cpu_wakeup_latency_seconds (a histogram)

Base units, whatever the JSON says; `Metric.prometheus` overrides the name, and the unit with it.

A Derived list has no series unless its declaration names one: its labels are whatever the workload brings.
So the commands of `exec` are left out (a series for every program ever run grows the database without end),
while the reasons of `offcpu`, which are functions of the kernel, are exported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from chainbench_agent.catalog import Counter, Derived, Distribution, Metric, Module, Procfs, Table
from chainbench_agent.evidence.metric_keys import reported_key

Kind = Literal["counter", "gauge", "histogram", "summary", "info"]

PER_SECOND = {"ms": 1e3, "us": 1e6}
"""The units of time in the evidence: how many make a second."""

SERIES_PER_SECOND = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6}
"""The same for the names of series; the two smaller ones only where a name was given to us."""


@dataclass(frozen=True, slots=True)
class Family:
    """All series of one name.  `name` is as scraped: a counter's ends in `_total`."""

    name: str
    kind: Kind
    help: str


@dataclass(frozen=True, slots=True)
class MetricFamily(Family):
    """A reported metric's family.  A value of the evidence, divided by `divisor`, is in the family's unit."""

    module: Module
    metric: Metric
    divisor: float

    @property
    def label(self) -> str:
        return self.metric.label if isinstance(self.metric, Table | Derived) else ""

    def in_unit(self, value: float) -> float:
        """A value of the evidence in the family's unit; times to the nanosecond, without binary noise."""
        return round(value / self.divisor, 9) if self.divisor != 1 else value


def catalog_families(catalog: Iterable[Module]) -> tuple[MetricFamily, ...]:
    """The families of every reported metric that has series, in the catalogue's order."""
    found = (metric_family(module, metric) for module in catalog for metric in module.reported)
    return tuple(family for family in found if family)


def metric_family(module: Module, metric: Metric) -> MetricFamily | None:
    """None for a list whose declaration names no series."""
    if isinstance(metric, Derived) and metric.value and not metric.prometheus:
        return None
    kind = _kind(metric)
    stem, unit = split_unit(metric)
    per_second = PER_SECOND.get(unit)
    derived = ("chainbench", module.name, stem.removeprefix(f"{module.name}_"))
    suffixes = ["seconds"] * bool(per_second) + ["total"] * (kind == "counter")
    name = metric.prometheus or "_".join([*derived, *suffixes])
    divisor = per_second / _series_per_second(name) if per_second else 1.0
    return MetricFamily(name, kind, metric.help, module, metric, divisor)


def split_unit(metric: Metric) -> tuple[str, str]:
    """The evidence key without its unit of time, and that unit (`ms`, `us`; empty: not a time)."""
    key = reported_key(metric)
    stem, _, unit = key.rpartition("_")
    if isinstance(metric, Derived) and metric.value in PER_SECOND:
        return key, metric.value
    return (stem, unit) if unit in PER_SECOND else (key, "")


def _kind(metric: Metric) -> Kind:
    match metric:
        case Distribution():
            return "histogram"
        case Counter() | Procfs() | Table() | Derived(gauge=False):
            return "counter"
    return "gauge"


def _series_per_second(name: str) -> float:
    return next((per_second for unit, per_second in SERIES_PER_SECOND.items() if unit in name.split("_")), 1.0)
