"""Plain text for a terminal: the verdict, where the change went, and why."""

from __future__ import annotations

from collections.abc import Iterator

from chainbench_agent.compare.build import Compared
from chainbench_agent.compare.model import Change, Comparison, Line, Waterfall
from chainbench_agent.compare.phrases import (
    OTHERS,
    bar,
    because_text,
    bounds,
    conditions_text,
    durations,
    folded,
    method_text,
    runs_order,
    side_name,
    signed,
)
from chainbench_agent.compare.rendering import Format
from chainbench_agent.compare.verdict import Verdict
from chainbench_agent.compare.watching import cost_sentence

WIDTH_OF_VERDICT = 14


def render(compared: Compared) -> str:
    return "\n".join(line.rstrip() for line in _document(compared.comparison)) + "\n"


def _document(comparison: Comparison) -> Iterator[str]:
    yield from _heading(comparison)
    yield ""
    if comparison.change is None:
        yield from _not_comparable(comparison)
        return
    yield from _verdict(comparison, comparison.change)
    if comparison.verdict is not Verdict.INCONCLUSIVE:
        yield from _explanation(comparison)


def _heading(comparison: Comparison) -> Iterator[str]:
    names = [side_name(side) for side in (comparison.baseline, comparison.optimized)]
    width = max(map(len, names))
    yield f"  baseline  {names[0]:{width}}    {runs_order(comparison)}"
    yield f" optimized  {names[1]:{width}}    {conditions_text(comparison)}"


def _not_comparable(comparison: Comparison) -> Iterator[str]:
    yield f"  {'NOT COMPARABLE':{WIDTH_OF_VERDICT}} {comparison.sentence}"
    for difference in comparison.environment.differences:
        yield f"      {difference.name}: {' / '.join(difference.baseline)} → {' / '.join(difference.optimized)}"


def _verdict(comparison: Comparison, change: Change) -> Iterator[str]:
    before, after, runs = _compared_durations(comparison)
    yield f"  {comparison.verdict.upper():{WIDTH_OF_VERDICT}} {durations(change, before, after)}    {bounds(change)}"
    separated = "; every run of one side beat every run of the other" if change.separated else ""
    indent = " " * (WIDTH_OF_VERDICT + 3)
    yield f"{indent}{signed(change.ms)} ms; {method_text(change, *runs)}{separated}"
    if comparison.control:
        yield f"{indent}of runs that were not watched; the watched ones: {signed(comparison.control.watched.pct)} %"
    for finding in comparison.reasons:
        word = "why" if finding.decides else "note"
        yield f"      {word}: {finding.sentence}  [{finding.reason}]"
    if comparison.verdict is Verdict.INCONCLUSIVE:
        if comparison.certain:
            yield f"      what is certain: {comparison.certain}"
        if comparison.would_tell:
            yield f"      what would tell: {comparison.would_tell}"


def _compared_durations(comparison: Comparison) -> tuple[float, float, tuple[int, int]]:
    """Typical durations and numbers of the runs that the verdict is about."""
    if control := comparison.control:
        runs = len(control.baseline_ms), len(control.optimized_ms)
        return control.typical_baseline_ms, control.typical_optimized_ms, runs
    left, right = comparison.baseline, comparison.optimized
    return left.summary.typical_ms, right.summary.typical_ms, (left.n, right.n)


def _explanation(comparison: Comparison) -> Iterator[str]:
    if comparison.waterfall:
        yield from _waterfall(comparison.waterfall)
    elif reason := comparison.unavailable.get("waterfall"):
        yield ""
        yield f"  Where it went is not known: {reason}"
    if cost := cost_sentence(comparison.cost):
        yield ""
        yield f"  {cost}"


def _waterfall(waterfall: Waterfall) -> Iterator[str]:
    shown, rest = folded(waterfall)
    total = abs(waterfall.total_ms)
    yield ""
    verb = "went" if waterfall.total_ms < 0 else "came from"
    yield f"  Where {total:,.1f} ms {verb}: the wall clock of the main thread, line by line"
    width = max([len(line.text) + 2 for line in shown] + [len(OTHERS)])
    for line in shown:
        yield _line(line, width)
    if round(rest, 1):
        yield f"  {signed(rest):>11} ms {'':7} {'':22}  {OTHERS}"
    yield "  ─────────"
    yield f"  {signed(waterfall.total_ms):>11} ms {'':7} {'':22}  the sum is exact"
    reasons = [(line.text, because_text(because)) for line in shown for because in line.because]
    if reasons:
        yield ""
        yield "  Why"
    last = ""
    for text, because in reasons:
        yield f"    {text if text != last else '':{width}}  {because}"
        last = text


def _line(line: Line, width: int) -> str:
    text = f"{'≈ ' if line.approximate else ''}{line.text}"
    share = f"{100 * line.share:.0f} %" if line.share is not None else ""
    values = f"{line.baseline_ms:,.1f} → {line.optimized_ms:,.1f}"
    return f"  {signed(line.delta_ms):>11} ms {share:>7} {bar(line.share or 0):22}  {text:{width}}  {values}"


FORMAT = Format("text", "text/plain; charset=utf-8", "for a terminal", render)
