"""Why a line of the ledger changed: the metrics assigned to it, and whether things became fewer or slower."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import mean

from chainbench_agent.compare.metrics import Sides, is_significant, tested_path
from chainbench_agent.compare.model import Because, Metric
from chainbench_agent.compare.support import Support, support_of


def because(metrics: Iterable[Metric], sides: Sides) -> dict[str, tuple[Because, ...]]:
    """Line → its metrics that changed, as far as that is not chance, in the order of their assignment.

    `sides`: the figures of the waterfall's runs.
    """
    significant = {(metric.line, metric.name): metric for metric in metrics if is_significant(metric)}
    lines = dict.fromkeys(line for line, _ in significant)
    return {line: tuple(_of_line(line, significant, sides)) for line in lines}


def _of_line(line: str, significant: Mapping[tuple[str, str], Metric], sides: Sides) -> Iterable[Because]:
    for support in support_of(line):
        if metric := significant.get((line, tested_path(support))):
            yield _because(support, metric, sides)


def _because(support: Support, metric: Metric, sides: Sides) -> Because:
    path = f"{support.path}.count" if support.distribution else support.path
    before, after = sides.baseline[path], sides.optimized[path]
    fewer, slower = _fewer_or_slower(support, sides) if support.distribution else (None, None)
    return Because(
        metric=support.path,
        text=support.text,
        baseline=mean(before),
        optimized=mean(after),
        fewer_ms=fewer,
        slower_ms=slower,
        in_every_run=sides.constant(path),
        p_adjusted=metric.p_adjusted,
    )


def _fewer_or_slower(support: Support, sides: Sides) -> tuple[float, float]:
    """The change of the total time in ms, parted exactly: Δ(n·m) = (n2 - n1)·m1 + n2·(m2 - m1)."""
    n1, n2 = (mean(side[f"{support.path}.count"]) for side in (sides.baseline, sides.optimized))
    total1, total2 = (mean(side[f"{support.path}.sum_us"]) / 1e3 for side in (sides.baseline, sides.optimized))
    if not n1 or not n2:
        return total2 - total1, 0.0
    fewer = (n2 - n1) * total1 / n1
    return fewer, total2 - total1 - fewer
