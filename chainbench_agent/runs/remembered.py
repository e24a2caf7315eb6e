"""Remembers ended runs and reports in memory; bounded, because labels such as `commit` take ever new values."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from chainbench_agent.evidence.model import Evidence, Labels
from chainbench_agent.evidence.report import Report
from chainbench_agent.evidence.totals import Totals

Ending = Literal["finished", "failed", "interrupted"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RememberedLabels:
    """One label set: its latest evidence, if a run of it gave any, and how often its runs ended in which way."""

    labels: Labels
    evidence: Evidence | None = None
    results: Counter[str] = field(default_factory=Counter)


class Memory:
    """The `most` label sets used last, and as many reports.  Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()  # guards the rest
        self._label_sets: dict[Labels, RememberedLabels] = {}
        self._reports: dict[Labels, Report] = {}
        self._latest: Evidence | None = None
        self._totals = Totals()

    def ended(self, labels: Labels, result: Ending, evidence: Evidence | None) -> None:
        """Count a run.  A run without evidence leaves the evidence of the run before."""
        with self._lock:
            before = self._label_sets.get(labels, RememberedLabels(labels))
            results = before.results + Counter[str]([result])
            self._put(self._label_sets, labels, RememberedLabels(labels, evidence or before.evidence, results))
            self._latest = evidence or self._latest
            self._totals = self._totals.plus(evidence)

    def restored(self, evidence: Evidence) -> None:
        """Remember what a run before this process measured, without counting the run.  The newest run comes last."""
        labels = Labels.of(evidence.run)
        with self._lock:
            self._put(self._label_sets, labels, RememberedLabels(labels, evidence))
            self._latest = evidence

    def forget(self, run_id: str) -> None:
        """Drop the evidence of a run that was deleted; if it was the latest, the newest one left becomes the latest."""
        with self._lock:
            for labels, one in self._label_sets.items():
                if one.evidence and one.evidence.run.id == run_id:
                    self._label_sets[labels] = replace(one, evidence=None)
            if self._latest and self._latest.run.id == run_id:
                left = [one.evidence for one in self._label_sets.values() if one.evidence]
                self._latest = max(left, key=lambda evidence: evidence.run.id, default=None)

    def reported(self, report: Report) -> None:
        """Remember a report under its own labels: it compares two runs, and often names no scenario."""
        with self._lock:
            self._put(self._reports, Labels.of(report), report)

    @property
    def latest(self) -> Evidence | None:
        """The evidence that came last."""
        with self._lock:
            return self._latest

    @property
    def totals(self) -> Totals:
        """The totals of all ended runs, including runs that are no longer remembered."""
        with self._lock:
            return self._totals

    def remembered(self) -> tuple[RememberedLabels, ...]:
        """Every label set; the one used last is at the end."""
        with self._lock:
            return tuple(self._label_sets.values())

    def reports(self) -> tuple[Report, ...]:
        """The latest report of each label set; the last one is at the end."""
        with self._lock:
            return tuple(self._reports.values())

    def _put(self, memory: dict[Labels, _T], labels: Labels, value: _T) -> None:
        memory.pop(labels, None)  # a dict keeps its order, so this moves the label set to the end
        memory[labels] = value
        if len(memory) > self._most:
            del memory[next(iter(memory))]
