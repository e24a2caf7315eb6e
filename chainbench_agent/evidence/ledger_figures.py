"""Reads the ledger: where the time of the target's threads went, as figures of the pseudo-module `ledger`.  Pure.

| name | labels | what it is |
|---|---|---|
| `wall_ms`, `on_cpu_ms`, `runnable_ms`, `blocked_ms`, `unexplained_ms` | | a line of the whole target |
| `category_ms` | category | a part of `blocked_ms` |
| `reason_ms` | category, reason, syscall, and file where it is known | a part of that category |

The same names with `threads.` in front are of single threads, which the labels tid, pid and command name; with
`idle_threads.` they are of all threads together that hardly ran.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chainbench_agent.evidence.figure import Figure, LabelPairs
from chainbench_agent.evidence.model import Evidence

LEDGER = "ledger"
LINES = ("wall_ms", "on_cpu_ms", "runnable_ms", "blocked_ms", "unexplained_ms")

NEEDS_TARGET = "only a run with a target has a ledger"
NOT_MEASURED = "made-up data has no ledger"


def ledger_figures(evidence: Evidence) -> Iterator[Figure]:
    """The whole target first, the threads that are shown behind it."""
    ledger = evidence.ledger
    if ledger is None:
        missing = NEEDS_TARGET if evidence.target.kind == "machine" else NOT_MEASURED
        reason = evidence.unavailable.get(LEDGER, missing)
        yield from (Figure(LEDGER, name, "ms", how="absent", reason=reason) for name in LINES)
        return
    yield from _account(ledger)
    for thread in ledger.get("threads", ()):
        labels = (("tid", str(thread["tid"])), ("pid", str(thread["pid"])), ("command", thread["command"]))
        yield from _account(thread, "threads.", labels)
    if "idle_threads" in ledger:
        yield from _account(ledger["idle_threads"], "idle_threads.")


def _account(account: Mapping[str, Any], prefix: str = "", labels: LabelPairs = ()) -> Iterator[Figure]:
    for name in LINES:
        yield Figure(LEDGER, prefix + name, "ms", labels, account[name])
    for category in account["blocked"]:
        of_category = (*labels, ("category", category["category"]))
        yield Figure(LEDGER, f"{prefix}category_ms", "ms", of_category, category["ms"])
        for wait in category["reasons"]:
            yield _reason(wait, f"{prefix}reason_ms", of_category)


def _reason(wait: Mapping[str, Any], name: str, labels: LabelPairs) -> Figure:
    own = tuple((key, wait[key]) for key in ("reason", "syscall", "file") if key in wait)
    error = wait.get("standard_error_ms") or None
    sampled = error or wait.get("sampled_percent", 100) < 100
    return Figure(LEDGER, name, "ms", labels + own, wait["ms"], error, "sampled" if sampled else "exact")
