"""Reads a module's section: each metric, its parts, and the main figures of single processes, as figures.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import hypot
from typing import Any

from chainbench_agent.abi.histogram import HistogramCounts
from chainbench_agent.catalog import Derived, Distribution, Metric, Module, Table
from chainbench_agent.evidence.distribution import COUNTED, IF_ANY, WHOLE_SECTION, summary
from chainbench_agent.evidence.figure import Figure, LabelPairs, Value
from chainbench_agent.evidence.metric_keys import reported_key, reported_unit, unit_of_key
from chainbench_agent.evidence.model import Evidence, Section
from chainbench_agent.evidence.sampling_error import is_sampled, is_sum, standard_error

NOT_COLLECTED = "the module did not collect in this run"
NOTHING_OBSERVED = "nothing was observed in this run"
NO_VALUE = "nothing happened in this run that it could be computed from"

NO_METRICS = frozenset({"sources", "unavailable", "scope", "sampling", "top_processes", "other_processes"})
"""The keys of a section that do not belong to a metric."""

EXACTNESS = frozenset({"sampled_percent", "standard_error_ms"})
"""The keys of a list's entry that say how far its value can be trusted."""


class _Reader:
    """Makes the figures of one metric of a section."""

    def __init__(self, section: Section, module: Module, metric: Metric) -> None:
        self.key = key = reported_key(metric)
        self.sampled = "sampling" in section and is_sampled(module, metric)
        self._module = module.name
        self._unit = reported_unit(metric)
        self._source = section.get("sources", {}).get(key, "")
        self._machine_wide = key in section.get("scope", ())

    def figure(
        self,
        value: Value,
        labels: LabelPairs = (),
        error: float | None = None,
        *,
        name: str = "",
        sampled: bool = False,
    ) -> Figure:
        """`name`: of a part of the metric; its unit follows from what is behind the dot."""
        unit = "ns" if isinstance(value, HistogramCounts) else self._unit
        return Figure(
            self._module,
            name or self.key,
            unit_of_key(name.rpartition(".")[2]) if name else unit,
            labels,
            value,
            error,
            "sampled" if sampled or self.sampled else "exact",
            "",
            self._source,
            self._machine_wide,
        )


def metric_figures(evidence: Evidence, module: Module, metric: Metric) -> list[Figure]:
    """The values of a reported metric: one, or one for each entry of a table or a list; or one that is absent."""
    key = reported_key(metric)
    section = evidence.sections.get(module.section_key)
    if section is None:
        return [_absent(module, metric, evidence.unavailable.get(module.name, NOT_COLLECTED))]
    is_inline = isinstance(metric, Derived) and metric.inline
    value = _inlined(section, module) if is_inline else section.get(key)
    if value is None or key in section.get("unavailable", ()):
        return [_absent(module, metric, section.get("unavailable", {}).get(key, NO_VALUE))]
    reader = _Reader(section, module, metric)
    errors = section["sampling"]["standard_error"] if reader.sampled else {}
    return _values(reader, metric, value, errors if is_inline else errors.get(key, {}))


def section_figures(evidence: Evidence, module: Module) -> Iterator[Figure]:
    """All that a module has: each metric with its parts behind it, then the processes."""
    for metric in module.reported:
        figures = metric_figures(evidence, module, metric)
        yield from figures
        if isinstance(metric, Distribution):
            yield from _summary(figures[0])
        yield from _parts(evidence, module, metric)
    yield from _processes(evidence, module)


def _absent(module: Module, metric: Metric, reason: str) -> Figure:
    return Figure(module.name, reported_key(metric), reported_unit(metric), how="absent", reason=reason)


def _inlined(section: Section, module: Module) -> Section:
    """The entries of a mapping that are keys of the section itself: all that belong to nothing else."""
    others = {reported_key(metric) for metric in module.reported} | NO_METRICS
    return {name: value for name, value in section.items() if name not in others}


def _values(reader: _Reader, metric: Metric, value: Any, errors: Any) -> list[Figure]:
    """`errors`: a number; or a mapping with one for each entry, or that of a distribution's `count`; or empty."""
    match value:
        case HistogramCounts():
            return [reader.figure(value, error=errors.get("count"))]
        case dict():
            label = metric.label if isinstance(metric, Table | Derived) else ""
            return [reader.figure(number, ((label, name),), errors.get(name)) for name, number in value.items()]
        case list() if isinstance(metric, Derived):
            return _listed(reader, metric, value)
    return [reader.figure(value, error=errors or None)]


def _listed(reader: _Reader, metric: Derived, entries: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """One for each combination of labels: entries that differ only in a number are added up."""
    found: dict[LabelPairs, Figure] = {}
    for entry in entries:
        value = entry[metric.value]
        if not isinstance(value, int | float):
            continue  # the edges of a cycle of locks: a finding, not a number
        labels = _labels(metric, entry)
        error = entry.get("standard_error_ms") or None
        figure = reader.figure(value, labels, error, sampled=bool(error) or entry.get("sampled_percent", 100) < 100)
        found[labels] = _added(found[labels], figure) if labels in found else figure
    return list(found.values())


def _added(one: Figure, other: Figure) -> Figure:
    """The sum; errors of independent samples add up by their squares."""
    value = (one.number or 0) + (other.number or 0)
    error = hypot(one.error or 0, other.error or 0) or None
    return one._replace(value=value, error=error, how="sampled" if "sampled" in (one.how, other.how) else "exact")


def _labels(metric: Derived, entry: Mapping[str, Any]) -> LabelPairs:
    """An entry's texts, and its label if that is a number."""
    return tuple((name, str(text)) for name, text in entry.items() if isinstance(text, str) or name == metric.label)


def _summary(figure: Figure) -> Iterator[Figure]:
    """A histogram's count, sum, extremes, mean and quantiles; the quantiles are within 3.1 % of the exact ones."""
    prefix = "" if figure.name == WHOLE_SECTION else f"{figure.name}."
    values = summary(figure.histogram) if figure.histogram else {}
    for key in (*COUNTED, *IF_ANY):
        error = figure.error if key == "count" else None
        own = figure._replace(name=f"{prefix}{key}", unit=unit_of_key(key), value=values.get(key), error=error)
        yield own if key in values else own._replace(how="absent", reason=figure.reason or NOTHING_OBSERVED)


def _parts(evidence: Evidence, module: Module, metric: Metric) -> Iterator[Figure]:
    """The further numbers of a list's entries: `by_device.bytes` next to `by_device`, which is their count."""
    section = evidence.sections.get(module.section_key, {})
    entries = section.get(reported_key(metric))
    if not isinstance(entries, list) or not isinstance(metric, Derived):
        return
    reader = _Reader(section, module, metric)
    for entry in entries:
        for key, value in entry.items():
            if key not in (metric.label, metric.value, *EXACTNESS) and isinstance(value, int | float):
                yield reader.figure(value, _labels(metric, entry), name=f"{reader.key}.{key}")


def _processes(evidence: Evidence, module: Module) -> Iterator[Figure]:
    """`top_processes.KEY` with the labels pid and command, and `other_processes.KEY`: together they are the whole."""
    section = evidence.sections.get(module.section_key, {})
    top, others = section.get("top_processes", ()), section.get("other_processes", {})
    for metric in module.per_process:
        reader = _Reader(section, module, metric)
        if reader.key not in others:
            continue  # the whole is absent, and says why
        interval = section["sampling"]["interval"] if reader.sampled and not is_sum(metric) else 1
        for process in top:
            labels = (("pid", str(process["pid"])), ("command", process["command"]))
            yield _of_processes(reader, "top_processes", process, interval, labels)
        yield _of_processes(reader, "other_processes", others, interval)


def _of_processes(
    reader: _Reader, where: str, figures: Mapping[str, Any], interval: int, labels: LabelPairs = ()
) -> Figure:
    count = figures[reader.key]
    error = round(standard_error(count, interval), 1) if interval > 1 else None
    return reader.figure(count, labels, error, name=f"{where}.{reader.key}")
