"""Selects the processes that did most, and adds up all others.  Pure.

A process without a record is counted in the module's own counters only.  The others are therefore the module's counters
less the processes shown, so that the parts always add up to the whole.  Figures of sampled events are estimates, as the
whole is; their standard error follows from evidence/sampling_error.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import nlargest
from typing import Any

from chainbench_agent.abi.process import Process
from chainbench_agent.catalog import Counter, Module
from chainbench_agent.evidence.metric_keys import reported_key

TOP = 10


def top_processes(
    module: Module, counts: Mapping[str, Any], processes: Sequence[Process], unavailable: Mapping[str, str]
) -> dict[str, Any]:
    """`{top_processes: [{pid, command, figure: …}], other_processes: {figure: …}}`, ordered by the first figure.

    Empty if no metric is counted per process.  `counts`: metric → difference, with open intervals added.
    """
    metrics = [metric for metric in module.per_process if reported_key(metric) not in unavailable]
    if not metrics:
        return {}
    names = [metric.name for metric in metrics]
    figures = ([process.figures[module.name][name] for name in names] for process in processes)
    ranked = nlargest(
        TOP, ((own, -process.pid, process.command) for own, process in zip(figures, processes, strict=True))
    )
    shown = [(own, -negative, command) for own, negative, command in ranked if any(own)]
    rest = [counts[name] - sum(own[i] for own, _, _ in shown) for i, name in enumerate(names)]
    return {
        "top_processes": [{"pid": pid, "command": command} | _named(metrics, own) for own, pid, command in shown],
        "other_processes": _named(metrics, rest),
    }


def _named(metrics: Sequence[Counter], figures: Sequence[int]) -> dict[str, int | float]:
    return {
        reported_key(metric): round(figure / 1e6, 6) if metric.name.endswith("_ns") else figure
        for metric, figure in zip(metrics, figures, strict=True)
    }
