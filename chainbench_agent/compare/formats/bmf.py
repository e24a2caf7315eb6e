"""Bencher Metric Format: the latency of the optimized side, in nanoseconds, with its bounds."""

from __future__ import annotations

import json

from chainbench_agent.compare.build import Compared
from chainbench_agent.compare.phrases import side_name
from chainbench_agent.compare.rendering import Format


def render(compared: Compared) -> str:
    comparison = compared.comparison
    summary = comparison.optimized.summary
    measures = {"latency": _measure(summary.typical_ms * 1e6, summary.min_ms * 1e6, summary.max_ms * 1e6)}
    if change := comparison.change:
        measures["change-percent"] = _measure(change.pct, change.low_pct, change.high_pct)
    return json.dumps({side_name(comparison.optimized): measures}, indent=2, ensure_ascii=False) + "\n"


def _measure(value: float, low: float | None, high: float | None) -> dict[str, float]:
    bounds = {"lower_value": low, "upper_value": high}
    return {"value": value} | {name: bound for name, bound in bounds.items() if bound is not None}


FORMAT = Format("bmf", "application/json", "Bencher Metric Format", render)
