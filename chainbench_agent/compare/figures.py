"""The numbers of an evidence by their path, such as `io.fsync_latency_us.count`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chainbench_agent.compare.run_set import MeasuredRun
from chainbench_agent.evidence.distribution import section_to_json
from chainbench_agent.evidence.model import Evidence

_NO_FIGURES = {"histogram", "sources", "unavailable", "scope", "other_processes"}
_UNITS = {"us": "µs", "ms": "ms", "bytes": "bytes", "ratio": "%", "percent": "%", "ns": "ns"}

Values = Mapping[str, Sequence[float]]
"""Path → the value of each run."""


def figures(evidence: Evidence) -> dict[str, float]:
    sections = {name: section_to_json(section) for name, section in evidence.sections.items()}
    return {path: value for name, section in sections.items() for path, value in _leaves(name, section)}


def _leaves(path: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in _NO_FIGURES:
                yield from _leaves(f"{path}.{key}", inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def values_of_runs(runs: Sequence[MeasuredRun], others: Sequence[MeasuredRun]) -> tuple[Values, Values]:
    """The figures that all runs of both sides have.

    A count that an evidence leaves out, as of a system call that was not made, is 0 in that run, unless it is
    unavailable there.
    """
    found = [figures(run.evidence) for run in (*runs, *others)]
    unavailable = {path for run in (*runs, *others) for path in _unavailable(run.evidence)}
    sections = set.intersection(*(set(run.evidence.sections) for run in (*runs, *others)))
    paths = sorted(
        path
        for path in dict.fromkeys(path for one in found for path in one)
        if path.partition(".")[0] in sections and not _below(path, unavailable)
    )
    complete = [
        path
        for path in paths
        if all(path in one for one in found) or all(isinstance(one.get(path, 0), int) for one in found)
    ]
    rows = {path: [one.get(path, 0) for one in found] for path in complete}
    return (
        {path: row[: len(runs)] for path, row in rows.items()},
        {path: row[len(runs) :] for path, row in rows.items()},
    )


def _unavailable(evidence: Evidence) -> Iterator[str]:
    for name, section in evidence.sections.items():
        yield from (f"{name}.{metric}" for metric in section.get("unavailable", ()))


def _below(path: str, prefixes: set[str]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in prefixes)


def unit_of(path: str) -> str:
    """The unit that the end of a path names; empty for counts."""
    return _UNITS.get(path.rpartition("_")[2].rpartition(".")[2], "")
