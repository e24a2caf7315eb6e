"""Markdown for a pull request or a step summary."""

from __future__ import annotations

from collections.abc import Iterator

from chainbench_agent.compare.build import Compared
from chainbench_agent.compare.model import Comparison, Metric, Waterfall
from chainbench_agent.compare.phrases import OTHERS, because_text, bounds, folded, number, runs_order, side_name, signed
from chainbench_agent.compare.rendering import Format

MOST_METRICS = 12


def render(compared: Compared) -> str:
    return "\n".join(_document(compared.comparison)) + "\n"


def _document(comparison: Comparison) -> Iterator[str]:
    yield f"### {_title(comparison)}"
    yield ""
    yield comparison.sentence
    yield ""
    yield f"- baseline: {_safe(side_name(comparison.baseline))}"
    yield f"- optimized: {_safe(side_name(comparison.optimized))}"
    yield f"- {runs_order(comparison)}"
    for finding in comparison.reasons:
        yield f"- {finding.sentence} (`{finding.reason}`)"
    if comparison.would_tell:  # nothing is claimed
        yield f"- what is certain: {comparison.certain or 'nothing'}"
        yield f"- what would tell: {comparison.would_tell}"
    if comparison.environment.differences:
        yield from _differences(comparison)
    if comparison.waterfall:
        yield from _waterfall(comparison.waterfall)
    if comparison.metrics:
        yield from _metrics(comparison.metrics)


def _title(comparison: Comparison) -> str:
    word = comparison.verdict.replace("_", " ").capitalize()
    if comparison.change is None:
        return word
    interval = bounds(comparison.change)
    return f"{word}: {signed(comparison.change.pct)} %" + (f" ({interval})" if interval else "")


def _differences(comparison: Comparison) -> Iterator[str]:
    yield from _table("condition", "baseline", "optimized")
    for one in comparison.environment.differences:
        yield f"| {_safe(one.name)} | {_safe(' / '.join(one.baseline))} | {_safe(' / '.join(one.optimized))} |"


def _waterfall(waterfall: Waterfall) -> Iterator[str]:
    shown, rest = folded(waterfall)
    yield from _table("main thread", "baseline ms", "optimized ms", "change ms", "why")
    for line in shown:
        why = "; ".join(because_text(because) for because in line.because)
        text = f"{'≈ ' if line.approximate else ''}{line.text}"
        yield f"| {text} | {line.baseline_ms:,.1f} | {line.optimized_ms:,.1f} | {signed(line.delta_ms)} | {why} |"
    if round(rest, 1):
        yield f"| {OTHERS} | | | {signed(rest)} | |"
    yield f"| **sum** | | | **{signed(waterfall.total_ms)}** | |"


def _metrics(metrics: tuple[Metric, ...]) -> Iterator[str]:
    yield from _table("metric", "baseline", "optimized", "change", "tier")
    by_name = {metric.name: metric for metric in metrics}  # one may support several lines
    for metric in list(by_name.values())[:MOST_METRICS]:
        change = "" if metric.change_pct is None else f"{signed(metric.change_pct)} %"
        values = f"{number(metric.baseline)} | {number(metric.optimized)}"
        yield f"| `{metric.name}` | {values} | {change} | {metric.tier} |"
    if len(by_name) > MOST_METRICS:
        yield ""
        yield f"{len(by_name) - MOST_METRICS} more metrics changed."


def _table(first: str, *columns: str) -> Iterator[str]:
    yield ""
    yield f"| {first} | {' | '.join(columns)} |"
    yield f"|---|{'---:|' * len(columns)}"


def _safe(text: str) -> str:
    """A label, which may hold anything, as text of a table or list."""
    for character in "\\|`*_<>[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


FORMAT = Format("markdown", "text/markdown; charset=utf-8", "for a pull request", render)
