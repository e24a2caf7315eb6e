"""Writes runs to the store as they go on and end.  A store that fails costs nobody a run.

It is said then: in the log, with the evidence, in the answer of `/stop` and in `/status`; and what could not be
written is written with the next run, if that can be.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from chainbench_agent.errors import StoreError, UnknownRun
from chainbench_agent.evidence.model import Evidence, Run
from chainbench_agent.runs.active_run_record import Slate
from chainbench_agent.runs.remembered import Memory, Result
from chainbench_agent.store.base import FROM_CHECKPOINT, NoStore, Store, StoredRun, Summary

MOST_WAITING = 8
"""How many ended runs wait in memory for a store that works again; the log has them all."""

log = logging.getLogger(__name__)


class Archive:
    """Of one Runs object.  `environment` is asked once for each run; `checkpoint_s`: how often `checkpoint` is due.

    `memory` begins with the latest evidence of the `max_kept` label sets used last: what was known before a restart.
    How often their runs ended how is not: such a count is of this process, and retention would make it fall.
    A run that was on when the agent died counts now, as nobody has counted it.
    """

    def __init__(
        self,
        store: Store | None = None,
        environment: Callable[[], Mapping[str, Any]] = dict,
        checkpoint_s: float = 5,
        max_kept: int = 100,
    ) -> None:
        self.store = store or NoStore()
        self.checkpoint_s = checkpoint_s
        self.memory = Memory(max_kept)
        self._environment = environment
        self._turn = threading.Lock()  # guards all that follows; a stop waits for one checkpoint at most
        self._on = ""
        self._so_far: Evidence | None = None  # of the last checkpoint of the run that is on
        self._of_this_run: Mapping[str, Any] = {}
        self._complaint = ""
        self._waiting: dict[str, StoredRun] = {}
        self._not_kept: tuple[str, str] = ("", "")
        self._remember(max_kept)

    def take_over(self, slate: Slate) -> None:
        """Before anything is asked: if the process before us was killed, the run that was on then stands there."""
        self.memory.take_over(slate, "; GET /runs has what was stored of it" if self.store.recovered else "")

    @property
    def keeps_runs(self) -> bool:
        return self.store.status().state != "off"

    def begin(self, run: Run) -> None:
        """From now on the run is kept: should the agent die, it is found interrupted."""
        with self._turn:
            self._on, self._so_far = run.id, None
            self._of_this_run, self._complaint = self._environment(), ""
            self._try(StoredRun(Summary.of(run, "running"), self._of_this_run))

    def checkpoint(self, evidence: Evidence) -> None:
        """Keep the evidence so far; nothing happens if its run has ended meanwhile."""
        with self._turn:
            if evidence.run.id == self._on:
                self._so_far = evidence
                self._try(self._entry(evidence.run, "running", evidence))

    def end(self, run: Run, result: Result, evidence: Evidence | None = None, failure: str = "") -> None:
        """Keep the run as it ended; it is on the disk when this returns, or `why_not_kept` says why not.

        One without evidence keeps that of its last checkpoint, as far as it lasted then, and `failure` says so.
        """
        with self._turn:
            if evidence is None and self._so_far:
                until_then = self._so_far.run.model_copy(update={"ended_by": run.ended_by})
                evidence = self._so_far.model_copy(update={"run": until_then})
                run, failure = until_then, f"{failure}; {FROM_CHECKPOINT}"
            entry = self._entry(run, result, evidence, failure)
            self._on, self._so_far = "", None
            why_not = self._try(entry)
            self._not_kept = (run.id, why_not)
            if why_not:
                log.error("run %s is not stored: %s; its evidence: %s", run.id, why_not, json.dumps(entry.evidence))
                self._wait(entry)
            else:
                self._write_what_waits()
                self._prune(run.id)

    def drop(self, run_id: str) -> None:
        """The run never was."""
        with self._turn:
            self._on, self._so_far = "", None
            try:
                self.store.delete(run_id)
            except StoreError as error:
                log.warning("run %s, which was refused, may be found interrupted: %s", run_id, error)

    def delete(self, run_id: str) -> None:
        """Forget a run that has ended.  UnknownRun if none of that id is kept."""
        with self._turn:
            waited = self._waiting.pop(run_id, None)
            if not self.store.delete(run_id) and not waited:
                raise UnknownRun(f"no run {run_id} is stored")

    def why_not_kept(self, run_id: str) -> str:
        """Why the run that ended last is not in the store; empty if it is, or is not meant to be."""
        with self._turn:
            last, why_not = self._not_kept
            return why_not if last == run_id else ""

    def _remember(self, most: int) -> None:
        try:
            for evidence in self.store.newest_of_each(most):
                self.memory.restored(evidence)
        except StoreError as error:
            log.error("what earlier runs measured is not in /metrics: %s", error)  # noqa: TRY400 - a sentence
        for run in self.store.recovered:
            self.memory.ended(run.labels, "interrupted", None)

    def _entry(self, run: Run, result: Any, evidence: Evidence | None, failure: str = "") -> StoredRun:
        source = evidence.source if evidence else ""
        summary = Summary.of(run, result, source, failure)
        return StoredRun(summary, self._of_this_run, evidence.as_json() if evidence else None)

    def _try(self, entry: StoredRun) -> str:
        """Save it; why that failed, or nothing.  The same complaint about one run is logged once."""
        try:
            self.store.save(entry)
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

    def _write_what_waits(self) -> None:
        for run_id, entry in list(self._waiting.items()):
            if self._try(entry):
                return
            del self._waiting[run_id]
            log.warning("run %s is stored now", run_id)

    def _prune(self, just_ended: str) -> None:
        try:
            if deleted := self.store.prune(spare=just_ended):
                log.info("%d runs were deleted, which were too many or too old", deleted)
        except StoreError as error:
            log.warning("old runs are not deleted: %s", error)
