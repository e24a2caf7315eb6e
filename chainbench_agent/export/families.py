"""Turns a run, a report, and the counts of runs into Prometheus families.

An absent figure has no series: a zero is always a measured zero.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate, pairwise

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from chainbench_agent.abi.histogram import UPPER_BOUNDS_NS, HistogramCounts
from chainbench_agent.evidence.figure import Figure
from chainbench_agent.evidence.model import Evidence, Labels
from chainbench_agent.evidence.report import Report
from chainbench_agent.evidence.section_figures import metric_figures
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
"""1.024 µs to 17.2 s by powers of two: each is the upper bound of a slot as well, so that no slot is split."""

_SLOTS_BELOW = (0, *(bisect_right(UPPER_BOUNDS_NS, ns) for ns in BUCKETS_NS), len(UPPER_BOUNDS_NS))
_go_float: Callable[[float], str] = floatToGoString  # as the library writes the values

RESULTS = {"finished": "success", "failed": "fail"}
"""The names that outside dashboards have for the ways a run ends; the other ways have our own."""


def run_labels(labels: Labels, machine: str) -> tuple[str, ...]:
    """The values of RUN_LABELS."""
    return (labels.scenario, labels.impl, labels.variant, labels.commit, machine, labels.dataset)


def identity(evidence: Evidence) -> tuple[str, ...]:
    """The values of KERNEL_LABELS, which all series of a run have."""
    return (*run_labels(evidence.run, evidence.run.machine), evidence.source)


class Families:
    """As much of a registry as prometheus_client needs to write some families."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def run_samples(families: Iterable[MetricFamily], evidence: Evidence) -> Iterator[Metric]:
    """The families that have a value in `evidence`, RUN_DURATION first."""
    labels = identity(evidence)
    duration = _gauge(RUN_DURATION, KERNEL_LABELS)
    duration.add_metric(labels, evidence.run.duration_ms / 1e3)
    yield duration
    for family in families:
        figures = metric_figures(evidence, family.module, family.metric)
        if figures and figures[0].how != "absent":
            yield _samples(family, figures, labels)


def report_samples(report: Report, machine: str) -> Iterator[Metric]:
    """DURATION and GAIN.  A gain is of two scenarios; its label `scenario` is empty unless the runner names one."""
    duration, gain = (_gauge(family, RUN_LABELS) for family in REPORT_FAMILIES)
    pair = (report.impl, report.variant, report.commit, machine, report.dataset)
    duration.add_metric(("baseline", *pair), report.baseline_ms)
    duration.add_metric(("optimized", *pair), report.optimized_ms)
    gain.add_metric((report.scenario, *pair), report.gain_pct)
    yield duration
    yield gain


def result_samples(results: Iterable[tuple[Labels, Mapping[str, int]]], machine: str) -> Metric:
    """The number of runs of each label set by the way they ended."""
    family = CounterMetricFamily(RUNS.name, RUNS.help, labels=(*RUN_LABELS, "result"))
    for labels, counts in results:
        for result, count in counts.items():
            family.add_metric((*run_labels(labels, machine), RESULTS.get(result, result)), count)
    return family


def without_samples(family: Family) -> Metric:
    """A family that has only its name, type and help."""
    match family.kind:
        case "counter":
            return CounterMetricFamily(family.name, family.help, labels=())
        case "histogram":
            return HistogramMetricFamily(family.name, family.help, labels=())
    return _gauge(family, ())


def _gauge(family: Family, labels: Sequence[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(family.name, family.help, labels=labels)


def _samples(family: MetricFamily, figures: Sequence[Figure], labels: tuple[str, ...]) -> Metric:
    if histogram := figures[0].histogram:
        return _histogram(family, histogram, labels)
    make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    names = list(dict.fromkeys(name for figure in figures for name, _ in figure.labels))
    metric = make(family.name, family.help, labels=(*KERNEL_LABELS, *names))
    for figure in figures:
        if (number := figure.number) is not None:
            own = dict(figure.labels)  # an entry may lack a label that others have, as `file` of a wait for no file
            metric.add_metric((*labels, *[own.get(name, "") for name in names]), family.in_unit(number))
    return metric


def _histogram(family: MetricFamily, histogram: HistogramCounts, labels: tuple[str, ...]) -> Metric:
    """Cumulative buckets; the +Inf bucket is the count."""
    counts = (sum(histogram.slots[first:last]) for first, last in pairwise(_SLOTS_BELOW))
    metric = HistogramMetricFamily(family.name, family.help, labels=KERNEL_LABELS)
    cumulative = list(zip(_bounds(family.divisor), accumulate(counts), strict=True))
    metric.add_metric(labels, cumulative, family.in_unit(histogram.sum / 1e3))
    return metric


@cache
def _bounds(divisor: float) -> tuple[str, ...]:
    """`le` of each bucket; the divisor is for microseconds."""
    ns_per_unit = 1e3 * divisor
    return (*(_go_float(ns / ns_per_unit) for ns in BUCKETS_NS), "+Inf")
