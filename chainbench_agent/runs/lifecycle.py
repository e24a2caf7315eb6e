"""One run at a time: idle → starting → running → stopping → idle.

The lock is held only for moments, never while the collector works: while one `/start` attaches, a second one is refused
and `/status` is answered.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from chainbench_agent.collector.base import Collector
from chainbench_agent.collector.exclusive import SharedCollector
from chainbench_agent.errors import AgentError, InputError, NoRun, RunActive
from chainbench_agent.evidence.model import Evidence, Run
from chainbench_agent.evidence.report import Report
from chainbench_agent.evidence.totals import Totals
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.model.stored_run import Query, StoredRun, Summary
from chainbench_agent.runs import running
from chainbench_agent.runs.archive import Archive
from chainbench_agent.runs.remembered import RememberedLabels
from chainbench_agent.runs.running import CurrentRun, EndedBy, Phase, RunsStatus, Watch

SETTLE_S = 4.0
"""How long a shutdown waits for a start, and then for a stop; server/gunicorn_server.py allows more than both."""

log = logging.getLogger(__name__)


class Runs:
    """The runs of one collector.  Thread-safe."""

    def __init__(
        self,
        collector: Collector,
        machine: str,
        *,
        archive: Archive | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.machine = machine
        self._archive = archive or Archive()
        self._collector = SharedCollector(collector)
        self._clock = clock
        self._now = now

        self._changed = threading.Condition()  # guards all that follows
        self._phase: Phase = "idle"
        self._active: CurrentRun | None = None
        self._failure = self._archive.lost
        self._closing = False

    # --- A run ------------------------------------------------------------------------------------

    def start(self, request: RunRequest) -> CurrentRun:
        """Begin a run; it ends with `stop`, after `longest_s`, or when the target has ended for a while.

        RunActive if a run is on, InputError if there is no such target, AgentError if the collector fails.
        """
        claimed = self._claim(request)
        self._archive.begin(self._run_until_now(claimed, "running"))  # first, so that nothing delays the answer later
        try:
            self._collector.start(request, claimed.id)
        except InputError:
            self._give_up(claimed)
            raise
        except Exception as error:
            log.exception("run %s could not start", claimed.id)
            raise self._failed(claimed, "start_failed", f"the collector could not start: {error}") from error
        active = replace(claimed, started_at=self._now(), started_ns=self._clock())
        with self._changed:
            self._phase, self._active, self._failure = "running", active, ""
            self._archive.started(f"{active.id} ({active.words})")
            self._changed.notify_all()
        log.info("run %s started: %s", active.id, active.words)
        watch = Watch(active, self._collector.target_has_ended)
        threading.Thread(target=self._watch, args=(active, watch), daemon=True).start()
        if self._archive.stores_runs:
            threading.Thread(target=self._checkpoint, args=(active,), daemon=True).start()
        return active

    def stop(self, ended_by: EndedBy = "stop", only: str = "") -> Evidence:
        """End the run, or only the run with that id.  NoRun if it is not on.

        AgentError if the collector fails: no run is on then either, and what it still had is in the log.
        """
        active = self._begin_stopping(only)
        try:
            evidence = self._collector.stop(lambda: self._run_until_now(active, ended_by))
        except Exception as error:
            log.exception("stopping run %s failed", active.id)
            salvaged = self._collector.salvage(self._run_until_now(active, ended_by))
            left = "what it had collected is in the agent's log" if salvaged else "it has no evidence any more"
            sentence = f"the collector could not stop: {error}; {left}"
            raise self._failed(active, ended_by, sentence, salvaged) from error
        self._archive.end(evidence.run, "interrupted" if ended_by == "shutdown" else "finished", evidence)
        self._end()
        log.info("run %s ended by %s after %.0f ms", active.id, ended_by, evidence.run.duration_ms)
        running.log_violations(evidence)
        return evidence

    def shutdown(self) -> None:
        """Accept no more runs; finish the run that is on and log its evidence."""
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: self._phase in {"idle", "running"}, SETTLE_S)
        try:
            evidence = self.stop("shutdown")
        except NoRun:  # no run was on, or a `/stop` came first
            with self._changed:
                self._changed.wait_for(lambda: self._phase == "idle", SETTLE_S)
        except AgentError as error:
            log.error("the run in progress ended with the shutdown: %s", error)  # noqa: TRY400 - logged by stop
        else:
            log.warning("the run in progress ended with the shutdown: %s", json.dumps(evidence.as_json()))

    # --- What is known ----------------------------------------------------------------------------

    def status(self) -> RunsStatus:
        collector = self._collector.status()
        store = self._archive.store_status()
        with self._changed:
            begun = self._phase in {"running", "stopping"}
            elapsed_ms = self._active.elapsed_ms(self._clock()) if self._active and begun else 0.0
            return RunsStatus(self._phase, self._active, elapsed_ms, self._failure, collector, store)

    def current(self) -> Evidence | None:
        """The evidence until now of the run that is on; None if no run is on, or the collector fails."""
        try:
            return self._collector.evidence_until_now(self._running)
        except Exception:
            log.exception("the run in progress gives no evidence")
            return None

    def latest(self) -> Evidence | None:
        """The evidence of the run that finished last."""
        return self._archive.latest()

    def totals(self) -> Totals:
        """The totals of all runs that ended."""
        return self._archive.totals()

    def report(self, report: Report) -> None:
        """Remember what the runner measured; it need not belong to a run."""
        self._archive.report(report)

    def reports(self) -> tuple[Report, ...]:
        """The latest report of each label set; the last one is at the end."""
        return self._archive.reports()

    def remembered(self) -> tuple[RememberedLabels, ...]:
        """The remembered runs of each label set; the one used last is at the end."""
        return self._archive.remembered()

    def find(self, query: Query) -> list[Summary]:
        """Stored runs, the newest first.  StoreError."""
        return self._archive.find(query)

    def get(self, run_id: str) -> StoredRun:
        """A stored run.  UnknownRun if none has that id, or StoreError."""
        return self._archive.get(run_id)

    def why_not_stored(self, run_id: str) -> str:
        """Why the run that ended last is not in the store; empty if it is, or is not meant to be."""
        return self._archive.why_not_stored(run_id)

    def delete(self, run_id: str) -> None:
        """Delete a stored run everywhere.  UnknownRun if none has that id, RunActive if it is on, StoreError."""
        with self._changed:
            if self._active and self._active.id == run_id:
                raise RunActive(self._active.now(self._phase, self._clock()))
        self._archive.delete(run_id)

    # --- The steps --------------------------------------------------------------------------------

    def _claim(self, request: RunRequest) -> CurrentRun:
        with self._changed:
            if self._closing:
                raise AgentError("the agent is shutting down; start the run when it is up again")
            if self._active:
                raise RunActive(self._active.now(self._phase, self._clock()))
            now = self._now()
            self._phase = "starting"
            self._active = CurrentRun(running.new_id(now), request, now, self._clock())
            return self._active

    def _watch(self, active: CurrentRun, watch: Watch) -> None:
        """End the run when it is due, unless it has ended before."""
        reason = watch.why_ended(self._clock, lambda pause_s: self._is_over(active, pause_s))
        if not reason:
            return
        with suppress(AgentError):  # a `/stop` came first, or stop has logged what went wrong
            self.stop(reason, only=active.id)

    def _checkpoint(self, active: CurrentRun) -> None:
        """Store the evidence until now from time to time, in case the agent dies in the run."""
        while not self._is_over(active, self._archive.checkpoint_s):
            if evidence := self.current():
                self._archive.checkpoint(evidence)

    def _is_over(self, active: CurrentRun, within_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._active is not active, within_s)

    def _begin_stopping(self, only: str) -> CurrentRun:
        with self._changed:
            if self._active is None or (only and self._active.id != only):
                raise NoRun(f"no run is active{self._archive.how_the_last_ended()}")
            if self._phase != "running":
                raise NoRun(f"run {self._active.id} is {self._phase}")
            self._phase = "stopping"
            return self._active

    def _give_up(self, active: CurrentRun) -> None:
        """Make it as if the run had never begun."""
        self._archive.drop(active.id)
        with self._changed:
            self._phase, self._active = "idle", None
            self._changed.notify_all()
        log.info("run %s was refused", active.id)

    def _failed(self, active: CurrentRun, by: EndedBy, sentence: str, salvaged: Evidence | None = None) -> AgentError:
        self._archive.end(self._run_until_now(active, by), "failed", salvaged, sentence)
        self._end(failure=sentence)
        return AgentError(sentence)

    def _end(self, failure: str = "") -> None:
        with self._changed:
            self._phase, self._active, self._failure = "idle", None, failure
            self._changed.notify_all()

    def _running(self) -> Run | None:
        with self._changed:
            active = self._active if self._phase == "running" else None
        return self._run_until_now(active, "running") if active else None

    def _run_until_now(self, active: CurrentRun, ended_by: EndedBy) -> Run:
        return active.run(self.machine, self._clock(), ended_by)
