"""What is remembered of runs that ended: bounded, because labels like `commit` grow without end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from chainbench_agent.evidence.model import Evidence, Labels
from chainbench_agent.evidence.report import Report
from chainbench_agent.evidence.totals import Totals
from chainbench_agent.runs.active_run_record import ActiveRunRecord

Result = Literal["finished", "failed", "interrupted"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RememberedLabels:
    """One label set: its latest evidence, if a run of it ever gave one, and how often its runs ended how."""

    labels: Labels
    evidence: Evidence | None = None
    results: Counter[str] = field(default_factory=Counter)


class Memory:
    """The `most` label sets touched last, and as many reports.  The caller sees to the locking."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._remembered: dict[Labels, RememberedLabels] = {}
        self._reports: dict[Labels, Report] = {}
        self.latest: Evidence | None = None
        """The evidence that came last."""
        self.totals = Totals()
        """Of all runs, also those that are not remembered any more."""
        self._active_run_record = ActiveRunRecord()
        self.lost = ""
        """What became of a run whose process was killed, until the next one begins."""

    def take_over(self, record: ActiveRunRecord, where: str) -> None:
        """Note on this `record` which run is on; if one stood there, it is `lost`.  `where`: what is left of it."""
        self._active_run_record, lost = record, record.take()
        self.lost = lost and lost + where

    def begun(self, run: str) -> None:
        self._active_run_record.write(run)
        self.lost = ""

    def ended(self, labels: Labels, result: Result, evidence: Evidence | None) -> None:
        """Count a run.  One without evidence leaves that of the run before."""
        self._active_run_record.wipe()
        before = self._remembered.get(labels, RememberedLabels(labels))
        remembered = RememberedLabels(labels, evidence or before.evidence, before.results + Counter[str]([result]))
        self._put(self._remembered, labels, remembered)
        self.latest = evidence or self.latest
        self.totals = self.totals.plus(evidence)

    def restored(self, evidence: Evidence) -> None:
        """What a run measured before this process began; the newest comes last.  It is not counted."""
        labels = Labels.of(evidence.run)
        self._put(self._remembered, labels, RememberedLabels(labels, evidence))
        self.latest = evidence

    def forget(self, run_id: str) -> None:
        """Drop the evidence of a run that was deleted; if it was the latest, that is now the newest one left."""
        for labels, remembered in self._remembered.items():
            if remembered.evidence and remembered.evidence.run.id == run_id:
                self._remembered[labels] = replace(remembered, evidence=None)
        if self.latest and self.latest.run.id == run_id:
            left = [remembered.evidence for remembered in self._remembered.values() if remembered.evidence]
            self.latest = max(left, key=lambda evidence: evidence.run.id, default=None)

    def how_the_last_ended(self) -> str:
        """For a `/stop` that comes too late; empty if the last run was stopped, or there was none."""
        if self.lost:
            return f": {self.lost}"
        run = self.latest.run if self.latest else None
        if run is None or run.ended_by in ("stop", "shutdown"):
            return ""
        return f": run {run.id} ended by itself ({run.ended_by}); GET /report has its evidence"

    def reported(self, report: Report) -> None:
        """Keep a report under its own labels: it tells of a pair of runs, often without a scenario."""
        labels = Labels.of(report)
        self._put(self._reports, labels, report)

    def remembered(self) -> tuple[RememberedLabels, ...]:
        """The label set touched last at the end."""
        return tuple(self._remembered.values())

    def reports(self) -> tuple[Report, ...]:
        """The last one at the end."""
        return tuple(self._reports.values())

    def _put(self, memory: dict[Labels, _T], labels: Labels, value: _T) -> None:
        memory.pop(labels, None)  # a dict keeps its order, so this moves it to the end
        memory[labels] = value
        if len(memory) > self._most:
            del memory[next(iter(memory))]
