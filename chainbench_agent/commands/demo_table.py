"""Two evidences side by side, for people: where the time went, what was done, and what the difference comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Evidence = dict[str, Any]
Row = tuple[str, float | None, float | None]

TOP_SYSCALLS = 6
TOP_PARTS = 3
TELLING_MS = 1.0
"""Parts of the ledger that are shorter than this on both sides are left out."""

NUMBERS = (
    ("programs started", "exec.exec_count"),
    ("context switches", "cpu.context_switches"),
    ("run-queue latency, median (µs)", "runqlat.p50_us"),
    ("run-queue latency, 95 % (µs)", "runqlat.p95_us"),
    ("system calls", "syscall_counts.total"),
    ("flushes (fsync)", "syscall_counts.fsync"),
    ("block I/O, requests", "biolatency.count"),
    ("block I/O latency, 95 % (µs)", "biolatency.p95_us"),
)
"""Row → where its number is in the evidence."""


def side_by_side(baseline: Evidence, optimized: Evidence, baseline_ms: float, optimized_ms: float) -> str:
    """A heading that says whether the numbers are measured, the table, and a sentence.  Wall times are the runner's."""
    rows = [
        ("wall time of the workload (ms)", baseline_ms, optimized_ms),
        *_ledger_rows(baseline, optimized),
        *((name, _number(baseline, path), _number(optimized, path)) for name, path in NUMBERS),
        *_top("system call ", _syscalls(baseline), _syscalls(optimized), TOP_SYSCALLS),
    ]
    cells = [("", "baseline", "optimized", "ratio"), *(_cells(*row) for row in rows)]
    return "\n".join([_heading(baseline), "", *_aligned(cells), *_answer(baseline, optimized)])


def _heading(evidence: Evidence) -> str:
    if evidence["available"]:
        return "Measured with eBPF in this kernel; only this workload counts."
    return f"MOCK DATA: all but the wall time is made up, because eBPF cannot run here.\n{evidence['reason']}"


def _number(evidence: Evidence, path: str) -> float | None:
    """None where the evidence has no such number."""
    value: Any = evidence
    for key in path.split("."):
        value = value.get(key, {})
    return value if isinstance(value, int | float) else None


def _parts(evidence: Evidence) -> dict[str, float]:
    """Where the time of all threads went, in milliseconds; nothing without a ledger."""
    ledger = evidence.get("ledger", {})
    if "wall_ms" not in ledger:
        return {}
    blocked = {f"blocked: {category['category']}": category["ms"] for category in ledger["blocked"]}
    parts = {"on a CPU": ledger["on_cpu_ms"], "waiting for a CPU": ledger["runnable_ms"]} | blocked
    return parts | {"unexplained": ledger["unexplained_ms"]}


def _ledger_rows(baseline: Evidence, optimized: Evidence) -> Iterator[Row]:
    """The lines of the ledger, the longest wait first; below them, their sum."""
    left, right = _parts(baseline), _parts(optimized)
    if not left:
        return
    for name in sorted(left | right, key=lambda name: left.get(name, 0) + right.get(name, 0), reverse=True):
        one, other = left.get(name, 0.0), right.get(name, 0.0)
        if max(one, other) >= TELLING_MS:
            yield f"  {name}", one, other
    yield "time of all its threads (ms)", sum(left.values()), sum(right.values())


def _answer(baseline: Evidence, optimized: Evidence) -> list[str]:
    """Why it is faster: the parts of the ledger that differ most."""
    left, right = _parts(baseline), _parts(optimized)
    saved = {name: ms - right.get(name, 0) for name, ms in left.items()}
    most = [name for name in sorted(saved, key=saved.__getitem__, reverse=True) if saved[name] >= TELLING_MS]
    if not most:
        return []
    parts = ", ".join(f"{saved[name]:,.1f} {name}{_in_what(baseline, name)}" for name in most[:TOP_PARTS])
    total = sum(left.values()) - sum(right.values())
    return ["", f"Its threads took {total:,.1f} ms less: {parts}."]


def _in_what(evidence: Evidence, part: str) -> str:
    """The most frequent reason for a wait: the kernel's function, and the system call that it was in."""
    for category in evidence["ledger"]["blocked"]:
        if part == f"blocked: {category['category']}" and category["reasons"]:
            reason = category["reasons"][0]
            return (
                f" ({reason['reason']} in {reason['syscall']})" if reason.get("syscall") else f" ({reason['reason']})"
            )
    return ""


def _syscalls(evidence: Evidence) -> dict[str, Any]:
    """Without those that have a row of their own."""
    counts = evidence.get("syscall_counts", {})
    return {name: count for name, count in counts.items() if name not in ("total", "fsync")}


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
