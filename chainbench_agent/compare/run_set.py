"""The runs of one side, as a comparison needs them: durations, the main thread's ledger, and conditions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from statistics import mean, median
from typing import Any, Protocol, TypeVar

from chainbench_agent.compare.ledger_lines import Lines, ledger_lines, subtract
from chainbench_agent.compare.model import DurationsFrom, Side, Summary
from chainbench_agent.errors import InputError
from chainbench_agent.evidence.model import Evidence, Labels

FINISHED = {"stop", "target_gone"}
MOST_RUNS = 100
UNEXPLAINED_SHARE = 0.02
"""Runs of which the ledger leaves a larger part unexplained are not in the waterfall."""


@dataclass(frozen=True, slots=True)
class ControlRun:
    """A run that was not watched."""

    started_at: datetime
    duration_ms: float


@dataclass(frozen=True)
class MeasuredRun:
    """A stored run.  `environment` is what is stored with it; `reported_ms` is the runner's own measurement of it."""

    evidence: Evidence
    environment: Mapping[str, Any] = field(default_factory=dict)
    reported_ms: float | None = None

    @property
    def id(self) -> str:
        return self.evidence.run.id

    @property
    def started_at(self) -> datetime:
        return self.evidence.run.started_at

    @property
    def finished(self) -> bool:
        return self.evidence.run.ended_by in FINISHED

    @cached_property
    def main_thread(self) -> Mapping[str, Any] | None:
        """The ledger's account of the target's first thread; None where the target is no process."""
        threads = (self.evidence.ledger or {}).get("threads", ())
        return next((thread for thread in threads if thread["tid"] == self.evidence.target.pid), None)

    @cached_property
    def lines(self) -> Lines | None:
        """The main thread's lines, in ns."""
        return ledger_lines(self.main_thread) if self.main_thread else None

    @cached_property
    def working_lines(self) -> Lines:
        """The lines of all threads together, without the threads that only waited."""
        ledger = self.evidence.ledger or {}
        return subtract(ledger_lines(ledger), ledger_lines(ledger["idle_threads"])) if ledger else {}

    @property
    def durations_from(self) -> DurationsFrom:
        if self.reported_ms is not None:
            return "reported"
        return "main_thread" if self.main_thread else "run"

    @property
    def duration_ms(self) -> float:
        if self.reported_ms is not None:
            return self.reported_ms
        return float(self.main_thread["wall_ms"]) if self.main_thread else self.evidence.run.duration_ms

    @property
    def explained(self) -> bool:
        """Whether nearly all of the main thread's time is in lines that say where it went."""
        if not self.lines:
            return False
        return abs(self.lines.get("unexplained", 0)) <= UNEXPLAINED_SHARE * sum(self.lines.values())


class Timed(Protocol):
    """A run of which the duration is known."""

    @property
    def started_at(self) -> datetime: ...
    @property
    def duration_ms(self) -> float: ...


T = TypeVar("T", bound=Timed)


def middle_half(runs: Sequence[T]) -> list[T]:
    """The runs by duration, without a quarter at each end."""
    ranked = sorted(runs, key=lambda run: run.duration_ms)
    cut = len(ranked) // 4
    return ranked[cut : len(ranked) - cut]


def typical_ms(runs: Sequence[Timed]) -> float:
    return mean(run.duration_ms for run in middle_half(runs))


def run_set(name: str, runs: Iterable[MeasuredRun]) -> tuple[MeasuredRun, ...]:
    """The runs in the order of their start; InputError, naming the side, for those that make no side."""
    ordered = tuple(sorted(runs, key=lambda run: (run.started_at, run.id)))
    if not ordered:
        raise InputError(name, "there is no run on this side")
    if len(ordered) > MOST_RUNS:
        raise InputError(name, f"has {len(ordered)} runs", f"compare at most {MOST_RUNS} a side")
    if len({run.id for run in ordered}) < len(ordered):
        raise InputError(name, "has a run twice")
    for run in ordered:
        if run.duration_ms <= 0:
            raise InputError(name, f"run {run.id} has no duration")
    return ordered


def median_run(runs: Sequence[MeasuredRun]) -> MeasuredRun:
    """The run at the median; of two, the slower one."""
    return sorted(runs, key=lambda run: run.duration_ms)[len(runs) // 2]


def side(runs: Sequence[MeasuredRun]) -> Side:
    durations = [run.duration_ms for run in runs]
    summary = Summary(
        typical_ms=typical_ms(runs), min_ms=min(durations), median_ms=median(durations), max_ms=max(durations)
    )
    return Side(
        n=len(runs),
        runs=tuple(run.id for run in runs),
        durations_ms=tuple(durations),
        durations_from=tuple(sorted({run.durations_from for run in runs})),
        labels=_common_labels(runs),
        summary=summary,
        median_run=median_run(runs).id,
    )


def _common_labels(runs: Sequence[MeasuredRun]) -> Labels:
    values = {name: {getattr(run.evidence.run, name) for run in runs} for name in Labels.model_fields}
    return Labels(**{name: found.pop() for name, found in values.items() if len(found) == 1})
