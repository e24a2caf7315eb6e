"""Where the change went: the ledger of the main thread, line by line, which adds up to its wall clock exactly.

Every line is the mean over the same runs, the middle half of each side: means add up, medians would not.  A sum over
all threads would mislead: idle workers wait for as long as the run takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from chainbench_agent.compare.children import Expanded, expand_wait_for_children
from chainbench_agent.compare.ledger_lines import CHILDREN, Lines, ledger_lines, line_text
from chainbench_agent.compare.metrics import ALPHA, EXACT_UP_TO
from chainbench_agent.compare.model import Because, Line, Threads, Waterfall
from chainbench_agent.compare.run_set import MeasuredRun, middle_half
from chainbench_agent.compare.statistics.shift import rank_sum

ONLY_WAITED = "only_waited"


def explained_runs(runs: Sequence[MeasuredRun]) -> list[MeasuredRun]:
    """The middle half by duration, less the runs of which the ledger leaves too much unexplained."""
    return [run for run in middle_half(runs) if run.explained]


def waterfall(baseline: Sequence[MeasuredRun], optimized: Sequence[MeasuredRun]) -> Waterfall | str:
    """The lines by the size of their change; or why there are none."""
    if any(run.main_thread is None for run in (*baseline, *optimized)):
        return "the target is not a process in every run, or its ledger is absent: there is no main thread"
    left, right = explained_runs(baseline), explained_runs(optimized)
    if not left or not right:
        return "in every run of a side the ledger leaves more than 2 % of the time unexplained"
    expanded = {run.id: expand_wait_for_children(run) for run in (*baseline, *optimized)}
    lines = _lines([expanded[run.id] for run in left], [expanded[run.id] for run in right])
    intervals = _intervals(
        lines, [expanded[r.id] for r in baseline if r.explained], [expanded[r.id] for r in optimized if r.explained]
    )
    total = _mean_ns([run.lines or {} for run in right]) - _mean_ns([run.lines or {} for run in left])
    return Waterfall(
        total_ms=_ms(total),
        baseline_runs=tuple(run.id for run in left),
        optimized_runs=tuple(run.id for run in right),
        lines=tuple(line.model_copy(update=intervals[line.line]) for line in lines),
    )


def with_because(found: Waterfall, because: Mapping[str, tuple[Because, ...]]) -> Waterfall:
    """`because`: line → the metrics that explain it."""
    lines = (line.model_copy(update={"because": because.get(line.line, ())}) for line in found.lines)
    return found.model_copy(update={"lines": tuple(lines)})


def threads(baseline: Sequence[MeasuredRun], optimized: Sequence[MeasuredRun]) -> Threads:
    """The work of all threads; those that only waited are one line."""
    sides = [[_all_threads(run) for run in side] for side in (baseline, optimized)]
    return Threads(lines=tuple(_lines(*sides, shares=False)))


def _all_threads(run: MeasuredRun) -> Expanded:
    idle = ledger_lines((run.evidence.ledger or {})["idle_threads"])
    return Expanded(run.working_lines | {ONLY_WAITED: sum(idle.values())}, exact=True)


def _lines(left: Sequence[Expanded], right: Sequence[Expanded], *, shares: bool = True) -> list[Line]:
    """Each line of either side, by the size of its change; lines that are zero on both sides are left out."""
    exact = all(one.exact for one in (*left, *right))
    names = dict.fromkeys(line for one in (*left, *right) for line in one.lines)
    means = {name: (_mean(name, left), _mean(name, right)) for name in names}
    total = sum(after - before for before, after in means.values())
    found = [
        Line(
            line=name,
            text="threads that only waited" if name == ONLY_WAITED else line_text(name),
            baseline_ms=_ms(before),
            optimized_ms=_ms(after),
            delta_ms=_ms(after - before),
            share=float((after - before) / total) if total and shares else None,
            approximate=name.startswith(CHILDREN) and not exact,
        )
        for name, (before, after) in means.items()
        if before or after
    ]
    return sorted(found, key=lambda line: -abs(line.delta_ms))


def _mean(line: str, runs: Sequence[Expanded]) -> Fraction:
    return Fraction(sum(run.lines.get(line, 0) for run in runs), len(runs))


def _mean_ns(runs: Sequence[Lines]) -> Fraction:
    return Fraction(sum(sum(lines.values()) for lines in runs), len(runs))


def _intervals(
    lines: Sequence[Line], left: Sequence[Expanded], right: Sequence[Expanded]
) -> dict[str, dict[str, float | None]]:
    """Bounds of a line's change in ms, with 95 %, from all runs that are explained."""
    found = {}
    for line in lines:
        before, after = [[run.lines.get(line.line, 0) / 1e6 for run in side] for side in (left, right)]
        shift = rank_sum(before, after, ALPHA, EXACT_UP_TO)
        found[line.line] = {"low_ms": shift.low, "high_ms": shift.high}
    return found


def _ms(ns: Fraction) -> float:
    return float(ns / 10**6)
