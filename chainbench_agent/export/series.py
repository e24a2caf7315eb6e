"""The name, the type and the unit of a metric in Prometheus, derived from its declaration.

    on_cpu_ns           Counter of module cpu   chainbench_cpu_on_cpu_seconds_total
    cpu_migrations      Counter of module cpu   chainbench_cpu_migrations_total
    softirqs            Table of module cpu     chainbench_cpu_softirqs_total{vector}
    wakeup_latency_ns   Distribution            chainbench_cpu_wakeup_latency_seconds (a histogram)

Series have base units; `Metric.prometheus` overrides the name, and the unit with it.

A Derived list has no series unless its declaration names one, because the workload chooses its labels.
So the commands of `exec` are left out (a series for every program ever run grows the database without end),
while the reasons of `offcpu`, which are functions of the kernel, are exported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from chainbench_agent.catalog import Counter, Derived, Distribution, Metric, Module, Procfs, Table
from chainbench_agent.evidence.metric_keys import Unit, reported_key, reported_unit

Kind = Literal["counter", "gauge", "histogram", "summary", "info"]

PER_SECOND: dict[Unit, float] = {"ms": 1e3, "us": 1e6}
"""The units of time in the evidence's JSON: how many make a second."""

SERIES_PER_SECOND = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6}
"""The same by a word of the series' name; only names that were given to us have the two smaller ones."""


@dataclass(frozen=True, slots=True)
class Family:
    """All series of one name.  `name`: as it is scraped, so a counter's ends in `_total`."""

    name: str
    kind: Kind
    help: str


@dataclass(frozen=True, slots=True)
class MetricFamily(Family):
    """A reported metric's family.  A value of the JSON, divided by `divisor`, is in the family's unit."""

    module: Module
    metric: Metric
    divisor: float

    def in_unit(self, value: float) -> float:
        """A value of the JSON in the family's unit; times are rounded to the nanosecond."""
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
    key, unit = reported_key(metric), reported_unit(metric)
    per_second = PER_SECOND.get(unit)
    stem = key.removesuffix(f"_{unit}") if per_second else key
    derived = ("chainbench", module.name, stem.removeprefix(f"{module.name}_"))
    suffixes = ["seconds"] * bool(per_second) + ["total"] * (kind == "counter")
    name = metric.prometheus or "_".join([*derived, *suffixes])
    divisor = per_second / _series_per_second(name) if per_second else 1.0
    return MetricFamily(name, kind, metric.help, module, metric, divisor)


def _kind(metric: Metric) -> Kind:
    match metric:
        case Distribution():
            return "histogram"
        case Counter() | Procfs() | Table() | Derived(gauge=False):
            return "counter"
    return "gauge"


def _series_per_second(name: str) -> float:
    return next((per_second for unit, per_second in SERIES_PER_SECOND.items() if unit in name.split("_")), 1.0)
