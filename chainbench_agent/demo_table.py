"""Two evidences side by side, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Evidence = dict[str, Any]
Row = tuple[str, float | None, float | None]

TOP_SYSCALLS = 6
TOP_REASONS = 5

NUMBERS = (
    ("programs started", "exec.exec_count"),
    ("context switches", "cpu.context_switches"),
    ("run-queue latency, median (µs)", "runqlat.p50_us"),
    ("run-queue latency, 95 % (µs)", "runqlat.p95_us"),
    ("flushes (fsync)", "syscall_counts.fsync"),
    ("block I/O, requests", "biolatency.count"),
    ("block I/O latency, 95 % (µs)", "biolatency.p95_us"),
    ("off-CPU time, all threads (ms)", "offcpu.total_ms"),
)
"""Row → where its number is in the evidence."""


def side_by_side(baseline: Evidence, optimized: Evidence, baseline_ms: float, optimized_ms: float) -> str:
    """A heading that says whether the numbers are measured, and the table.  The times are the runner's own."""
    rows = [
        ("wall time of the workload (ms)", baseline_ms, optimized_ms),
        *((name, _number(baseline, path), _number(optimized, path)) for name, path in NUMBERS),
        *_top("  ", _reasons(baseline), _reasons(optimized), TOP_REASONS),
        *_top("system call ", _syscalls(baseline), _syscalls(optimized), TOP_SYSCALLS),
    ]
    cells = [("", "baseline", "optimized", "ratio"), *(_cells(*row) for row in rows)]
    return "\n".join([_heading(baseline), "", *_aligned(cells)])


def _heading(evidence: Evidence) -> str:
    if evidence["available"]:
        return "Measured with eBPF in this kernel, for the whole machine without the agent."
    return f"MOCK DATA: all but the wall time is made up, because eBPF cannot run here.\n{evidence['reason']}"


def _number(evidence: Evidence, path: str) -> float | None:
    """None where the evidence has no such number."""
    value: Any = evidence
    for key in path.split("."):
        value = value.get(key, {})
    return value if isinstance(value, int | float) else None


def _reasons(evidence: Evidence) -> dict[str, Any]:
    """Off-CPU milliseconds by what the threads waited in."""
    sums: dict[str, Any] = {}
    for reason in evidence.get("offcpu", {}).get("top_reasons", ()):
        sums[reason["reason"]] = sums.get(reason["reason"], 0) + reason["ms"]
    return sums


def _syscalls(evidence: Evidence) -> dict[str, Any]:
    """Without the one that has a row of its own."""
    return {name: count for name, count in evidence.get("syscall_counts", {}).items() if name != "fsync"}


def _top(prefix: str, baseline: dict[str, Any], optimized: dict[str, Any], most: int) -> Iterator[Row]:
    """The entries of two mappings that differ most; what only one of them lists is absent in the other."""
    left, right = (
        {name: value for name, value in mapping.items() if isinstance(value, int | float)}
        for mapping in (baseline, optimized)
    )
    differences = {name: abs(left.get(name, 0) - right.get(name, 0)) for name in left | right}
    for name in sorted(differences, key=differences.__getitem__, reverse=True)[:most]:
        yield prefix + name, left.get(name), right.get(name)


def _cells(name: str, left: float | None, right: float | None) -> tuple[str, ...]:
    ratio = f"{left / right:.1f} x" if left and right else ""
    return name, _text(left), _text(right), ratio


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _aligned(cells: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Columns as wide as their widest cell, numbers to the right."""
    first, *others = ([*map(len, column)] for column in zip(*cells, strict=True))
    for name, *values in cells:
        numbers = (f"{value:>{max(widths)}}" for value, widths in zip(values, others, strict=True))
        yield "   ".join([f"{name:<{max(first)}}", *numbers]).rstrip()
