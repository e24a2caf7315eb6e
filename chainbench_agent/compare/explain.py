"""Why the sides differ: the waterfall with its reasons, the work of all threads, and the metrics that changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from chainbench_agent.compare.because import because
from chainbench_agent.compare.figures import values_of_runs
from chainbench_agent.compare.metrics import Sides, exploratory, supporting, tested_path
from chainbench_agent.compare.model import Metric, Threads, Waterfall
from chainbench_agent.compare.run_set import MeasuredRun
from chainbench_agent.compare.support import support_of
from chainbench_agent.compare.waterfall import threads, waterfall, with_because


@dataclass(frozen=True, slots=True)
class Explanation:
    """`unavailable`: parts that are absent, and why."""

    waterfall: Waterfall | None
    threads: Threads | None
    metrics: tuple[Metric, ...]
    unavailable: dict[str, str] = field(default_factory=dict)


def explain(baseline: Sequence[MeasuredRun], optimized: Sequence[MeasuredRun]) -> Explanation:
    found = waterfall(baseline, optimized)
    lines = [line.line for line in found.lines] if isinstance(found, Waterfall) else []
    sides = Sides(*values_of_runs(baseline, optimized))
    supported = supporting(lines, sides)
    assigned = {path for line in lines for support in support_of(line) for path in _paths(tested_path(support))}
    metrics = (*supported, *exploratory(sides, assigned))
    if not isinstance(found, Waterfall):
        return Explanation(None, None, metrics, {"waterfall": found, "threads": found})
    left, right = _chosen(baseline, found.baseline_runs), _chosen(optimized, found.optimized_runs)
    explained = with_because(found, because(supported, Sides(*values_of_runs(left, right))))
    return Explanation(explained, threads(left, right), metrics)


def _paths(path: str) -> tuple[str, ...]:
    """A metric that is assigned to a line, and what says the same: the count of a distribution, for its sum."""
    distribution = path.removesuffix(".sum_us")
    return (path,) if distribution == path else (path, f"{distribution}.count")


def _chosen(runs: Sequence[MeasuredRun], ids: Collection[str]) -> list[MeasuredRun]:
    return [run for run in runs if run.id in ids]
