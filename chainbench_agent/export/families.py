"""What one run, one report, and the count of runs look like as Prometheus families.

A metric that is absent from the evidence has no series: a zero is only ever a measured zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from chainbench_agent.catalog import Derived, Distribution
from chainbench_agent.evidence.metric_keys import reported_key
from chainbench_agent.evidence.model import Evidence, Labels, Section
from chainbench_agent.evidence.report import Report
from chainbench_agent.export.series import Family, MetricFamily

RUN_LABELS = ("scenario", "impl", "variant", "commit", "machine", "dataset")
KERNEL_LABELS = (*RUN_LABELS, "source")

RUN_DURATION = Family("chainbench_run_duration_seconds", "gauge", "Time from /start to /stop, or until now.")
DURATION = Family(
    "chainbench_duration_milliseconds",
    "gauge",
    'Wall time of the benchmark as reported by its runner: scenario "baseline" and scenario "optimized".',
)
GAIN = Family("chainbench_gain_percent", "gauge", "Gain of the optimised variant as reported by the runner.")
RUNS = Family("chainbench_runs_total", "counter", "Finished runs by result.")

RUN_FAMILIES = (RUN_DURATION,)
REPORT_FAMILIES = (DURATION, GAIN)

BUCKETS_NS = tuple(1 << power for power in range(10, 35))
"""1.024 µs to 17.2 s by powers of two: each is the upper bound of a slot too, so that no slot is split."""

_BUCKETS_US = tuple(ns / 1e3 for ns in BUCKETS_NS)
_go_float: Callable[[float], str] = floatToGoString  # as the library writes the values
_RESERVED = frozenset({"sources", "unavailable", "scope", "sampling", "top_processes", "other_processes"})
"""Keys of a section that are no metric's."""


RESULTS = {"finished": "success", "failed": "fail"}
"""What outside dashboards call the ways a run ends; others keep their names."""


def run_labels(labels: Labels, machine: str) -> tuple[str, ...]:
    """The values of RUN_LABELS."""
    return (labels.scenario, labels.impl, labels.variant, labels.commit, machine, labels.dataset)


def run_samples(families: Iterable[MetricFamily], evidence: Evidence) -> Iterator[Metric]:
    """The families that have a value in `evidence`, RUN_DURATION first."""
    labels = (*run_labels(evidence.run, evidence.run.machine), evidence.source)
    duration = _gauge(RUN_DURATION, KERNEL_LABELS)
    duration.add_metric(labels, evidence.run.duration_ms / 1e3)
    yield duration
    for family in families:
        section = evidence.sections.get(family.module.section_key)
        if section is None:
            continue
        if isinstance(family.metric, Distribution):
            found = _histogram(family, section, labels)
        else:
            found = _numbers(family, section, labels)
        if found is not None:
            yield found


def report_samples(report: Report, machine: str) -> Iterator[Metric]:
    """DURATION and GAIN.  A gain is of a pair of scenarios; its own is empty unless the runner names one."""
    duration, gain = (_gauge(family, RUN_LABELS) for family in REPORT_FAMILIES)
    pair = (report.impl, report.variant, report.commit, machine, report.dataset)
    duration.add_metric(("baseline", *pair), report.baseline_ms)
    duration.add_metric(("optimized", *pair), report.optimized_ms)
    gain.add_metric((report.scenario, *pair), report.gain_pct)
    yield duration
    yield gain


def result_samples(results: Iterable[tuple[Labels, Mapping[str, int]]], machine: str) -> Metric:
    """How often the runs of each label set ended how."""
    family = CounterMetricFamily(RUNS.name, RUNS.help, labels=(*RUN_LABELS, "result"))
    for labels, counts in results:
        for result, count in counts.items():
            family.add_metric((*run_labels(labels, machine), RESULTS.get(result, result)), count)
    return family


def without_samples(family: Family) -> Metric:
    """Only the name, type and help of a family."""
    match family.kind:
        case "counter":
            return CounterMetricFamily(family.name, family.help, labels=())
        case "histogram":
            return HistogramMetricFamily(family.name, family.help, labels=())
    return _gauge(family, ())


def _gauge(family: Family, labels: Sequence[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(family.name, family.help, labels=labels)


def _histogram(family: MetricFamily, section: Section, labels: tuple[str, ...]) -> Metric | None:
    """Cumulative buckets.  `count` and `sum_us` are exact; the +Inf bucket is the count."""
    key = reported_key(family.metric)
    distribution = section if family.metric.name == "latency_ns" else section.get(key, {})
    if "histogram" not in distribution:
        return None
    counts = [0] * (len(_BUCKETS_US) + 1)
    bucket = 0
    for slot in distribution["histogram"]:  # in ascending order
        while bucket < len(_BUCKETS_US) and slot["bucket_us"] > _BUCKETS_US[bucket]:
            bucket += 1
        counts[bucket] += slot["count"]
    ns_per_unit = 1e3 * family.divisor  # the divisor is for microseconds
    bounds = [*(_go_float(ns / ns_per_unit) for ns in BUCKETS_NS), "+Inf"]
    histogram = HistogramMetricFamily(family.name, family.help, labels=KERNEL_LABELS)
    cumulative = list(zip(bounds, accumulate(counts), strict=True))
    histogram.add_metric(labels, cumulative, family.in_unit(distribution["sum_us"]))
    return histogram


def _numbers(family: MetricFamily, section: Section, labels: tuple[str, ...]) -> Metric | None:
    points = _points(family, section)
    if not points:
        return None
    make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    names = [name for name, _ in next(iter(points))]
    metric = make(family.name, family.help, labels=(*KERNEL_LABELS, *names))
    for own, value in points.items():
        metric.add_metric((*labels, *(text for _, text in own)), family.in_unit(value))
    return metric


Own = tuple[tuple[str, str], ...]
"""The labels that a metric has of its own: (name, value), …"""


def _points(family: MetricFamily, section: Section) -> Mapping[Own, float]:
    """The numbers of a metric by its own labels; empty where it has no value."""
    metric, key = family.metric, reported_key(family.metric)
    if isinstance(metric, Derived) and metric.inline:
        others = {reported_key(other) for other in family.module.reported}
        value: Any = {name: count for name, count in section.items() if name not in _RESERVED | others}
    elif key in section:
        value = section[key]
    else:
        return {}
    match value:
        case dict():
            return {((family.label, name),): count for name, count in value.items()}
        case list():
            return _listed(value, metric.value if isinstance(metric, Derived) else "")
    return {(): value}


def _listed(items: Sequence[Mapping[str, Any]], value: str) -> Mapping[Own, float]:
    """A list's texts are its labels.  What differs only in something else is one series, and is added up."""
    points: dict[Own, float] = {}
    for item in items:
        own = tuple((name, text) for name, text in item.items() if isinstance(text, str))
        points[own] = points.get(own, 0) + item[value]
    return points
