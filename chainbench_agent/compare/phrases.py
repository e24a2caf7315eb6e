"""Numbers and parts of sentences as people read them; all formats for people use these."""

from __future__ import annotations

from chainbench_agent.compare.model import Because, Change, Comparison, Line, Side, Waterfall

MINUS = "\N{MINUS SIGN}"
FOLD_SHARE = 0.02
"""Lines with a smaller part of the change are shown as one."""

OTHERS = "all others"
_PARTS = " ▏▎▍▌▋▊▉"


def signed(value: float, digits: int = 1) -> str:
    """With a sign, also a plus; a value that rounds to zero has none."""
    text = f"{abs(value):,.{digits}f}"
    if not text.strip("0.,"):
        return text
    return f"{MINUS if value < 0 else '+'}{text}"


def number(value: float) -> str:
    """A count or a mean: as many digits as mean something."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:,.1f}"


def bar(share: float, width: int = 22) -> str:
    """`share` of `width` columns, in eighths of a column."""
    eighths = round(max(0.0, min(share, 1.0)) * width * 8)
    full, part = divmod(eighths, 8)
    return "█" * full + _PARTS[part].strip()


def durations(change: Change, before: float, after: float) -> str:
    return f"{before:,.1f} → {after:,.1f} ms    {signed(change.pct)} %"


def bounds(change: Change) -> str:
    """The interval in percent; empty where there is none."""
    if change.low_pct is None or change.high_pct is None:
        return ""
    return f"{change.confidence} %: {signed(change.low_pct)} … {signed(change.high_pct)} %"


def method_text(change: Change, baseline: int, optimized: int) -> str:
    """The p-value and what it is from."""
    runs = f"{change.pairs} pairs" if change.pairs else f"{baseline} + {optimized} runs"
    return f"p = {change.p:.2g} ({runs}, {change.method})"


def runs_order(comparison: Comparison) -> str:
    n = f"{comparison.baseline.n} + {comparison.optimized.n} runs"
    if comparison.change is None:
        return n
    return f"{n} in alternating pairs" if comparison.change.alternated else f"{n}, not alternated"


def side_name(side: Side) -> str:
    """The labels of a side in one line."""
    labels = side.labels
    words = " ".join(word for word in (labels.impl, labels.scenario, labels.variant) if word)
    return ", ".join(part for part in (words, labels.commit, labels.dataset) if part) or f"run {side.runs[0]}"


def folded(waterfall: Waterfall) -> tuple[list[Line], float]:
    """The lines to show, and the change of all others, rounded so that what is shown adds up."""
    least = FOLD_SHARE * max(abs(waterfall.total_ms), *(abs(line.delta_ms) for line in waterfall.lines))
    shown = [line for line in waterfall.lines if abs(line.delta_ms) >= least and line.delta_ms]
    rest = round(waterfall.total_ms, 1) - sum(round(line.delta_ms, 1) for line in shown)
    return shown, rest


def because_text(because: Because) -> str:
    """Says what changed, and how much of it came from fewer events and how much from slower ones."""
    counts = f"{because.text} {number(because.baseline)} → {number(because.optimized)}"
    every = " in every run" if because.in_every_run else ""
    if because.fewer_ms is None or because.slower_ms is None:
        return counts + every
    parts = [
        f"{signed(because.fewer_ms)} ms for {'fewer' if because.fewer_ms < 0 else 'more'}",
        f"{signed(because.slower_ms)} ms for {'faster' if because.slower_ms < 0 else 'slower'} ones",
    ]
    return f"{counts}{every}: {', '.join(parts)}"


def conditions_text(comparison: Comparison) -> str:
    """That all conditions were the same, or which were not."""
    names = [difference.name for difference in comparison.environment.differences]
    if not names:
        return "same machine, kernel, CPUs, modules"
    return f"different: {', '.join(names)}"
