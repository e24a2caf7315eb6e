"""Tests which metrics changed: those assigned to a line of the ledger beforehand, and all others as hints to explore.

The supporting metrics of a line are tested together (Holm); the others are many, so that of what is listed one in
twenty is expected to be chance (Benjamini-Hochberg).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import median

from chainbench_agent.compare.figures import Values, unit_of
from chainbench_agent.compare.model import Metric
from chainbench_agent.compare.statistics.multiplicity import benjamini_hochberg, holm
from chainbench_agent.compare.statistics.shift import rank_sum
from chainbench_agent.compare.support import Support, support_of

ALPHA = Fraction(5, 100)
FEWEST_RUNS_TO_EXPLORE = 8
FEWEST_FOR_CONSTANT = 3
EXACT_UP_TO = 12
"""Runs a side; exact tests of hundreds of metrics would take seconds with more."""


@dataclass(frozen=True, slots=True)
class Sides:
    """The figures of both sides: path → a value for each run."""

    baseline: Values
    optimized: Values

    def changed(self, path: str) -> bool:
        """Whether a test makes sense: the value is not the same in all runs."""
        return len({*self.baseline[path], *self.optimized[path]}) > 1

    def constant(self, path: str) -> bool:
        """Whether each side has one value only, in several runs: that needs no test."""
        before, after = self.baseline[path], self.optimized[path]
        return len(set(before)) == 1 == len(set(after)) and min(len(before), len(after)) >= FEWEST_FOR_CONSTANT


def tested_path(support: Support) -> str:
    """A distribution is tested by its sum, which is count times mean."""
    return f"{support.path}.sum_us" if support.distribution else support.path


def supporting(lines: Iterable[str], sides: Sides) -> list[Metric]:
    """The metrics of each line that changed, adjusted within the line."""
    found: list[Metric] = []
    for line in lines:
        paths = [path for path in map(tested_path, support_of(line)) if path in sides.baseline]
        metrics = [_metric(path, sides, line) for path in paths if sides.changed(path)]
        found += _adjusted(metrics, holm)
    return found


def exploratory(sides: Sides, supported: set[str]) -> list[Metric]:
    """The other metrics that changed, the most certain first; none with fewer than 8 runs a side."""
    paths = [path for path in sides.baseline if path not in supported and sides.changed(path)]
    if not paths or min(len(side[paths[0]]) for side in (sides.baseline, sides.optimized)) < FEWEST_RUNS_TO_EXPLORE:
        return []
    adjusted = _adjusted([_metric(path, sides) for path in paths], benjamini_hochberg)
    return sorted((metric for metric in adjusted if is_significant(metric)), key=lambda metric: metric.p_adjusted or 0)


def is_significant(metric: Metric) -> bool:
    return metric.p_adjusted is None or metric.p_adjusted <= ALPHA


def _metric(path: str, sides: Sides, line: str = "") -> Metric:
    before, after = sides.baseline[path], sides.optimized[path]
    from_, to = median(before), median(after)
    shift = None if sides.constant(path) else rank_sum(before, after, ALPHA, EXACT_UP_TO)
    return Metric(
        name=path,
        unit=unit_of(path),
        baseline=from_,
        optimized=to,
        change_pct=100 * (to - from_) / from_ if from_ else None,
        low=shift.low if shift else to - from_,
        high=shift.high if shift else to - from_,
        p=shift.p if shift else None,
        tier="supporting" if line else "exploratory",
        line=line,
    )


def _adjusted(metrics: Sequence[Metric], adjust: Callable[[Sequence[float]], list[float]]) -> list[Metric]:
    """Metrics that have one value on each side are not tested, and count as no test."""
    tested = [metric for metric in metrics if metric.p is not None]
    adjusted = dict(
        zip((metric.name for metric in tested), adjust([metric.p or 0.0 for metric in tested]), strict=True)
    )
    return [metric.model_copy(update={"p_adjusted": adjusted.get(metric.name)}) for metric in metrics]
