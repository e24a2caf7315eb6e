"""A CSV table: the duration, the lines of the main thread, and the metrics that changed."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from chainbench_agent.compare.build import Compared
from chainbench_agent.compare.model import Comparison
from chainbench_agent.compare.rendering import Format

COLUMNS = ("kind", "name", "unit", "baseline", "optimized", "change", "low", "high", "p", "verdict")
Row = tuple[str | float | None, ...]


class _Text:
    """A file-like object in memory, for the csv module."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, text: str) -> None:
        self.written.append(text)


def render(compared: Compared) -> str:
    text = _Text()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(_rows(compared.comparison))
    return "".join(text.written)


def _rows(comparison: Comparison) -> Iterator[Row]:
    change, sides = comparison.change, (comparison.baseline, comparison.optimized)
    typical = [side.summary.typical_ms for side in sides]
    if change:
        interval = change.low_ms, change.high_ms, change.p
        yield ("duration", "duration", "ms", *typical, change.ms, *interval, comparison.verdict)
    else:
        yield ("duration", "duration", "ms", *typical, None, None, None, None, comparison.verdict)
    for line in comparison.waterfall.lines if comparison.waterfall else ():
        values = line.baseline_ms, line.optimized_ms, line.delta_ms, line.low_ms, line.high_ms
        yield ("line", line.line, "ms", *values, None, "")
    for one in comparison.metrics:
        values = one.baseline, one.optimized, one.optimized - one.baseline, one.low, one.high
        yield (one.tier, one.name, one.unit, *values, one.p_adjusted, "")


FORMAT = Format("csv", "text/csv; charset=utf-8", "a table for spreadsheets", render)
