"""The verdict, the reasons for it, and the sentence that says both."""

from __future__ import annotations

from collections.abc import Sequence

from chainbench_agent.compare.duration import band_percent, includes_zero
from chainbench_agent.compare.model import Change, Environment, Finding, WatchingCost, Waterfall
from chainbench_agent.compare.verdict import Reason, Verdict
from chainbench_agent.compare.watching import is_doubtful

UNEXPLAINED_SHARE = 0.2
BUSY_SHARE = 0.2


def judge(change: Change, watched: Change, cost: WatchingCost | None, waterfall: Waterfall | None) -> list[Reason]:
    """The reasons against a claim and the notes.  `watched`: the same as `change`, unless that is of control runs."""
    found = []
    if change.low_pct is None:
        found.append(Reason.TOO_FEW_RUNS)
    elif includes_zero(change):
        found.append(Reason.INTERVAL_INCLUDES_ZERO)
    elif abs(change.pct) < band_percent(change):
        found.append(Reason.BELOW_RESOLUTION)
    elif change is watched and is_doubtful(cost, change):
        found.append(Reason.COST_OF_WATCHING)
    if not change.alternated:
        found.append(Reason.NOT_ALTERNATED)
    return found + _notes(waterfall)


def _notes(waterfall: Waterfall | None) -> list[Reason]:
    if waterfall is None:
        return []
    lines = {line.line: line for line in waterfall.lines}
    unexplained, waits = lines.get("unexplained"), lines.get("runnable")
    walls = sum(line.baseline_ms for line in lines.values()), sum(line.optimized_ms for line in lines.values())
    loss = unexplained and abs(unexplained.delta_ms) > UNEXPLAINED_SHARE * abs(waterfall.total_ms)
    busy = waits and (waits.baseline_ms > BUSY_SHARE * walls[0] or waits.optimized_ms > BUSY_SHARE * walls[1])
    return ([Reason.LOSS] if loss else []) + ([Reason.BUSY_MACHINE] if busy else [])


def verdict_of(reasons: Sequence[Reason], change: Change) -> Verdict:
    if any(reason.decides for reason in reasons):
        return Verdict.INCONCLUSIVE
    return Verdict.FASTER if change.pct < 0 else Verdict.SLOWER


def findings(reasons: Sequence[Reason]) -> tuple[Finding, ...]:
    return tuple(Finding.of(reason) for reason in reasons)


def sentence(verdict: Verdict, reasons: Sequence[Reason], change: Change, waterfall: Waterfall | None) -> str:
    """The answer in one sentence."""
    if verdict is Verdict.INCONCLUSIVE:
        deciding = next(reason for reason in reasons if reason.decides)
        return f"Whether the optimized side is faster is open: {deciding.sentence}."
    low, high = sorted((abs(change.low_pct or 0), abs(change.high_pct or 0)))
    claim = (
        f"The optimized side is {abs(change.pct):.1f} % {verdict}"
        f" ({change.confidence} %: {low:.1f} to {high:.1f} %), by {abs(change.ms):.1f} ms"
    )
    return f"{claim}{_most_of_it(waterfall)}."


def _most_of_it(waterfall: Waterfall | None) -> str:
    if waterfall is None or not waterfall.lines or not waterfall.total_ms:
        return ""
    first = waterfall.lines[0]
    return f"; {100 * (first.share or 0):.0f} % of the main thread's difference is: {first.text}"


def not_comparable_sentence(environment: Environment) -> str:
    names = ", ".join(difference.name for difference in environment.differences)
    return f"The sides cannot be compared: {names} differ, or are not usable."
