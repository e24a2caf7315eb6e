"""The main thread's wait for its children, replaced by what the children did meanwhile.

That is exact where the children ran one after the other.  Where they ran side by side, or longer than they were waited
for, the wait is shared out in proportion to their lines, and marked as approximate.
"""

from __future__ import annotations

from dataclasses import dataclass

from chainbench_agent.compare.ledger_lines import CHILDREN, Lines, ledger_lines, subtract
from chainbench_agent.compare.run_set import MeasuredRun

WAIT = "wait_child"
EXACT_WITHIN = 0.02
"""Children are taken to have run one by one if their time differs from the wait by no more than this part."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """`lines` add up to what they were before."""

    lines: Lines
    exact: bool


def expand_wait_for_children(run: MeasuredRun) -> Expanded:
    """The main thread's lines, with the wait for children shared out by what these did; see the file's docstring."""
    own = run.lines or {}
    waited, children = own.get(WAIT, 0), _children(run)
    total = sum(children.values())
    if not waited or total <= 0:
        return Expanded(own, exact=True)
    shares = {CHILDREN + line: waited * ns // total for line, ns in children.items() if ns > 0}
    largest = max(shares, key=lambda line: shares[line])
    shares[largest] += waited - sum(shares.values())  # what the divisions left over
    rest = {line: ns for line, ns in own.items() if line != WAIT}
    return Expanded(rest | shares, exact=abs(total - waited) <= EXACT_WITHIN * waited)


def _children(run: MeasuredRun) -> Lines:
    """All threads but those of the main thread's own process, without the waits for further children.

    A child that waits for a child of its own would count that time twice.
    """
    ledger, main = run.evidence.ledger, run.main_thread
    if not ledger or not main:
        return {}
    lines = ledger_lines(ledger)
    for thread in ledger["threads"]:
        if thread["pid"] == main["pid"]:
            lines = subtract(lines, ledger_lines(thread))
    return {line: max(ns, 0) for line, ns in lines.items() if line != WAIT}
