"""The lines of a ledger account in whole nanoseconds, so that they add up to the wall clock exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Lines = dict[str, int]
"""Line → ns: `on_cpu`, `runnable`, the categories of blocked time, and `unexplained`."""

CHILDREN = "children: "
"""Before a line of the children that the main thread waited for."""

_TEXTS = {"on_cpu": "on a CPU", "runnable": "waiting for a CPU", "unexplained": "unexplained"}


def line_text(line: str) -> str:
    """A line as people read it."""
    if line.startswith(CHILDREN):
        return f"in children: {line_text(line.removeprefix(CHILDREN))}"
    return _TEXTS.get(line, f"blocked: {line}")


def ledger_lines(account: Mapping[str, Any]) -> Lines:
    """Lines of the whole ledger, of a thread, or of the idle threads.

    Waits below a microsecond may have no category in the evidence; here they are part of `unexplained`.
    """
    lines = {"on_cpu": _ns(account["on_cpu_ms"]), "runnable": _ns(account["runnable_ms"])}
    lines |= {category["category"]: _ns(category["ms"]) for category in account["blocked"]}
    return lines | {"unexplained": _ns(account["wall_ms"]) - sum(lines.values())}


def subtract(whole: Lines, part: Lines) -> Lines:
    return {line: ns - part.get(line, 0) for line, ns in whole.items()}


def _ns(ms: float) -> int:
    return round(ms * 1e6)
