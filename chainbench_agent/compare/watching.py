"""The CPU time that the agent took from a target, which makes differences look larger than they are."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from chainbench_agent.compare.model import Change, WatchingCost
from chainbench_agent.compare.run_set import MeasuredRun, middle_half

DOUBTFUL_SHARE = 0.5
"""If watching is a larger part of the change, nothing is claimed without control runs."""

MENTIONED_SHARE = 0.01


def watching_ms(run: MeasuredRun) -> float | None:
    """The target's part of the cost, entry into the programs included; else the time of all programs, if known."""
    cost, ledger = run.evidence.cost, run.evidence.ledger
    if cost is None:
        return None
    if cost.target_cpu_percent is not None and ledger:
        return float(cost.target_cpu_percent * ledger["on_cpu_ms"] / 100)
    return cost.bpf_ns / 1e6


def watching_cost(
    baseline: Sequence[MeasuredRun], optimized: Sequence[MeasuredRun], change: Change
) -> WatchingCost | None:
    """The mean of each side's middle half; None if it is not known in all of these runs."""
    sides = [[watching_ms(run) for run in middle_half(side)] for side in (baseline, optimized)]
    left, right = ([ms for ms in side if ms is not None] for side in sides)
    if [len(left), len(right)] != [len(side) for side in sides]:
        return None
    delta = mean(right) - mean(left)
    return WatchingCost(
        baseline_ms=mean(left),
        optimized_ms=mean(right),
        delta_ms=delta,
        share=delta / change.ms if change.ms else None,
    )


def is_doubtful(cost: WatchingCost | None, change: Change) -> bool:
    return cost is not None and abs(cost.delta_ms) > DOUBTFUL_SHARE * abs(change.ms)


def cost_sentence(cost: WatchingCost | None) -> str:
    """Says which part of the change is the watching; empty if that is not known, or works against the change."""
    if cost is None or not cost.share or cost.share < MENTIONED_SHARE:
        return ""
    return f"About {abs(cost.delta_ms):.1f} ms of it ({100 * cost.share:.0f} %) is the watching."
