"""The totals of all runs since the agent started.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from chainbench_agent.evidence.model import Evidence

Key = TypeVar("Key")


class Program(NamedTuple):
    """A hook's program, and the attach point that fed it."""

    hook: str
    source: str


@dataclass(frozen=True, slots=True)
class Totals:
    """Counters that only grow: lost events by cause, runs and time of our programs, failed self-checks."""

    lost: Mapping[str, int] = field(default_factory=dict)
    program_runs: Mapping[Program, int] = field(default_factory=dict)
    program_ns: Mapping[Program, int] = field(default_factory=dict)
    violations: Mapping[str, int] = field(default_factory=dict)
    """Invariant → number of comparisons that did not hold."""

    def plus(self, evidence: Evidence | None) -> Totals:
        """The totals with one more run."""
        if evidence is None:
            return self
        programs = evidence.cost.programs if evidence.cost else []
        violations = evidence.self_check.violations if evidence.self_check else []
        return Totals(
            _sum(self.lost, evidence.loss.causes if evidence.loss else {}),
            _sum(self.program_runs, {Program(p.hook, p.source): p.runs for p in programs}),
            _sum(self.program_ns, {Program(p.hook, p.source): p.ns for p in programs}),
            _sum(self.violations, Counter(violation.invariant for violation in violations)),
        )

    def at_least(self, shown: Totals) -> Totals:
        """The larger of each pair: a counter that was shown never falls."""
        return Totals(
            _largest(self.lost, shown.lost),
            _largest(self.program_runs, shown.program_runs),
            _largest(self.program_ns, shown.program_ns),
            _largest(self.violations, shown.violations),
        )


def _sum(one: Mapping[Key, int], other: Mapping[Key, int]) -> dict[Key, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in (*one, *other)}


def _largest(one: Mapping[Key, int], other: Mapping[Key, int]) -> dict[Key, int]:
    return {key: max(one.get(key, 0), other.get(key, 0)) for key in (*one, *other)}
