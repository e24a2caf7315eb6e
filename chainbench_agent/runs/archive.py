"""Owns what is known of runs: what is remembered in memory, and what is stored in the database.

A store that fails costs nobody a run.  The failure is in the log (with the evidence), in the answer of `/stop` and in
`/status`; a run that could not be stored is stored with the next run, if that succeeds.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from chainbench_agent.errors import StoreError, UnknownRun
from chainbench_agent.evidence.model import Evidence, Labels, Run
from chainbench_agent.evidence.report import Report
from chainbench_agent.evidence.totals import Totals
from chainbench_agent.model.status import StoreStatus
from chainbench_agent.model.stored_run import Query, Result, StoredRun, Summary
from chainbench_agent.runs.active_run_record import ActiveRunRecord
from chainbench_agent.runs.remembered import Ending, Memory, RememberedLabels
from chainbench_agent.store.base import FROM_CHECKPOINT, NoStore, Store

MOST_WAITING = 8
"""How many ended runs wait in memory for a store that works again; the log has all of them."""

log = logging.getLogger(__name__)


class Archive:
    """Belongs to one Runs object.  `environment` is called once per run; `checkpoint_s`: seconds between checkpoints.

    It begins with the latest evidence of the `most_remembered` label sets used last, as the store has them.  It does
    not begin with how often their runs ended in which way: those counts are of this process, and deleting old runs
    would make them fall.  A run that was on when the agent died counts now, because nothing has counted it before.
    """

    def __init__(
        self,
        store: Store | None = None,
        environment: Callable[[], Mapping[str, Any]] = dict,
        checkpoint_s: float = 5,
        most_remembered: int = 100,
    ) -> None:
        self.checkpoint_s = checkpoint_s
        self.lost = ""
        """A sentence about a run whose process was killed, until the next run has started."""
        self._store = store or NoStore()
        self._memory = Memory(most_remembered)
        self._record = ActiveRunRecord()
        self._environment = environment
        self._turn = threading.Lock()  # guards all that follows; a stop waits for one checkpoint at most
        self._run_id = ""  # of the run that is on
        self._checkpointed: Evidence | None = None
        self._environment_of_run: Mapping[str, Any] = {}
        self._complaint = ""
        self._waiting: dict[str, StoredRun] = {}
        self._not_stored: tuple[str, str] = ("", "")  # the run that ended last, and why
        self._remember_stored(most_remembered)

    def take_over(self, record: ActiveRunRecord) -> None:
        """Note the run that is on in `record` from now on.  A run that is noted there already is `lost`."""
        self._record, lost = record, record.take()
        where = "; GET /runs has what was stored of it" if self._store.recovered else ""
        self.lost = lost and lost + where

    # --- A run ------------------------------------------------------------------------------------

    @property
    def stores_runs(self) -> bool:
        return self._store.status().state != "off"

    def begin(self, run: Run) -> None:
        """Store a run that is about to start: an agent that dies in it finds it interrupted."""
        with self._turn:
            self._run_id, self._checkpointed = run.id, None
            self._environment_of_run, self._complaint = self._environment(), ""
            self._try(StoredRun(Summary.of(run, "running"), self._environment_of_run))

    def started(self, run: str) -> None:
        """Note in the active-run record that a run is on.  `run`: its id and labels, in words."""
        self._record.write(run)
        self.lost = ""

    def checkpoint(self, evidence: Evidence) -> None:
        """Store the evidence until now; does nothing if its run has ended meanwhile."""
        with self._turn:
            if evidence.run.id == self._run_id:
                self._checkpointed = evidence
                self._try(self._entry(evidence.run, "running", evidence))

    def end(self, run: Run, result: Ending, evidence: Evidence | None = None, failure: str = "") -> None:
        """Store and count a run that has ended.  It is on the disk on return, or `why_not_stored` says why not.

        A run without evidence gets that of its last checkpoint, with the duration until then, and `failure` says so.
        Only the evidence of a run that did not fail is remembered.
        """
        with self._turn:
            self._store_ended(run, result, evidence, failure)
        self._record.wipe()
        self._memory.ended(Labels.of(run), result, None if result == "failed" else evidence)

    def drop(self, run_id: str) -> None:
        """Remove a run that was refused, as if it had never begun."""
        with self._turn:
            self._run_id, self._checkpointed = "", None
            try:
                self._store.delete(run_id)
            except StoreError as error:
                log.warning("run %s, which was refused, may be found interrupted: %s", run_id, error)

    def delete(self, run_id: str) -> None:
        """Delete a run that has ended, also from memory.  UnknownRun if none with that id is stored, or StoreError."""
        with self._turn:
            waited = self._waiting.pop(run_id, None)
            if not self._store.delete(run_id) and not waited:
                raise UnknownRun(f"no run {run_id} is stored")
        self._memory.forget(run_id)

    def report(self, report: Report) -> None:
        """Remember what a runner measured."""
        self._memory.reported(report)

    # --- What is known ----------------------------------------------------------------------------

    def find(self, query: Query) -> list[Summary]:
        """Stored runs, the newest first.  StoreError."""
        return self._store.find(query)

    def get(self, run_id: str) -> StoredRun:
        """A stored run.  UnknownRun if none has that id, or StoreError."""
        if run := self._store.get(run_id):
            return run
        raise UnknownRun(f"no run {run_id} is stored")

    def store_status(self) -> StoreStatus:
        return self._store.status()

    def why_not_stored(self, run_id: str) -> str:
        """Why the run that ended last is not in the store; empty if it is, or is not meant to be."""
        with self._turn:
            last, why_not = self._not_stored
            return why_not if last == run_id else ""

    def latest(self) -> Evidence | None:
        """The evidence of the run that finished last."""
        return self._memory.latest

    def totals(self) -> Totals:
        """The totals of all runs that ended."""
        return self._memory.totals

    def remembered(self) -> tuple[RememberedLabels, ...]:
        """Every label set in memory; the one used last is at the end."""
        return self._memory.remembered()

    def reports(self) -> tuple[Report, ...]:
        """The latest report of each label set; the last one is at the end."""
        return self._memory.reports()

    def how_the_last_ended(self) -> str:
        """For a `/stop` that comes too late; empty if the last run was stopped, or there was none."""
        if self.lost:
            return f": {self.lost}"
        latest = self._memory.latest
        if latest is None or latest.run.ended_by in ("stop", "shutdown"):
            return ""
        return f": run {latest.run.id} ended by itself ({latest.run.ended_by}); GET /report has its evidence"

    # --- The store --------------------------------------------------------------------------------

    def _remember_stored(self, most: int) -> None:
        try:
            for evidence in self._store.newest_of_each(most):
                self._memory.restored(evidence)
        except StoreError as error:
            log.error("what earlier runs measured is not in /metrics: %s", error)  # noqa: TRY400 - a sentence
        for run in self._store.recovered:
            self._memory.ended(run.labels, "interrupted", None)

    def _store_ended(self, run: Run, result: Ending, evidence: Evidence | None, failure: str) -> None:
        if evidence is None and self._checkpointed:
            until_then = self._checkpointed.run.model_copy(update={"ended_by": run.ended_by})
            evidence = self._checkpointed.model_copy(update={"run": until_then})
            run, failure = until_then, f"{failure}; {FROM_CHECKPOINT}"
        entry = self._entry(run, result, evidence, failure)
        self._run_id, self._checkpointed = "", None
        why_not = self._try(entry)
        self._not_stored = (run.id, why_not)
        if why_not:
            log.error("run %s is not stored: %s; its evidence: %s", run.id, why_not, json.dumps(entry.evidence))
            self._wait(entry)
        else:
            self._store_waiting()
            self._prune(run.id)

    def _entry(self, run: Run, result: Result, evidence: Evidence | None, failure: str = "") -> StoredRun:
        source = evidence.source if evidence else ""
        summary = Summary.of(run, result, source, failure)
        return StoredRun(summary, self._environment_of_run, evidence.as_json() if evidence else None)

    def _try(self, entry: StoredRun) -> str:
        """Save a run; the answer is why that failed, or empty.  Repeated complaints about one run are logged once."""
        try:
            self._store.save(entry)
        except StoreError as error:
            if str(error) != self._complaint:
                log.warning("run %s cannot be written to the store: %s", entry.summary.id, error)
            self._complaint = str(error)
            return self._complaint
        except Exception as error:  # a bug here is no reason for a run to fail either
            log.exception("run %s cannot be written to the store", entry.summary.id)
            return f"the agent made a mistake: {error}"
        return ""

    def _wait(self, entry: StoredRun) -> None:
        self._waiting[entry.summary.id] = entry
        if len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]

    def _store_waiting(self) -> None:
        for run_id, entry in list(self._waiting.items()):
            if self._try(entry):
                return
            del self._waiting[run_id]
            log.warning("run %s is stored now", run_id)

    def _prune(self, just_ended: str) -> None:
        try:
            if deleted := self._store.prune(spare=just_ended):
                log.info("%d runs were deleted, which were too many or too old", deleted)
        except StoreError as error:
            log.warning("old runs are not deleted: %s", error)
