"""Decides the exit code for a build, by the bound of the change and not by the estimate."""

from __future__ import annotations

import re

from chainbench_agent.compare.model import Comparison
from chainbench_agent.compare.verdict import Verdict
from chainbench_agent.errors import InputError

PASSED, REGRESSION, NOT_COMPARED, OPEN = 0, 1, 2, 3


def slower_percent(condition: str) -> float:
    """The percent in `slower:5%`; `slower` is 0.  InputError for anything else."""
    match = re.fullmatch(r"slower(?::(\d+(?:\.\d+)?)\s*%?)?", condition.strip())
    if match is None:
        raise InputError("fail-if", f"{condition!r} is no condition", "write slower:5%")
    return float(match[1] or 0)


def exit_code(comparison: Comparison, slower: float = 0, *, require_conclusive: bool = False) -> int:
    """`slower`: with 99 % confidence the change has to be larger than this, in percent, to count as a regression."""
    if comparison.verdict is Verdict.NOT_COMPARABLE or comparison.change is None:
        return NOT_COMPARED
    if comparison.verdict is Verdict.SLOWER and (comparison.change.low_pct or 0) > slower:
        return REGRESSION
    if comparison.verdict is Verdict.INCONCLUSIVE and require_conclusive:
        return OPEN
    return PASSED
