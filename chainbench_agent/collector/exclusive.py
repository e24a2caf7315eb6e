"""Lets threads share a collector, which may work for seconds and serves one caller at a time."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable

from chainbench_agent.collector.base import Collector
from chainbench_agent.evidence.model import Evidence, Run
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.model.status import CollectorStatus

FRESH_MS = 1000.0
"""A running run is sampled again only after this time: many scrapes cost one sample a second."""

log = logging.getLogger(__name__)


class SharedCollector:
    """Only start and stop wait for their turn; other calls return the last known answer instead."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._turn = threading.Lock()
        self._status = collector.status()
        self._latest: Evidence | None = None

    def start(self, request: RunRequest, run_id: str) -> None:
        with self._turn:
            self._latest = None
            self._collector.start(request, run_id)

    def target_has_ended(self) -> bool:
        """Whether the target has ended; False while the collector is at work."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            return self._collector.target_has_ended()
        finally:
            self._turn.release()

    def stop(self, run: Callable[[], Run]) -> Evidence:
        """The evidence of the whole run.  `run` is called when the turn has come: the run lasts until then."""
        with self._turn:
            self._latest = None
            run_until_now = run()
            self._collector.stop()
            return self._collector.evidence(run_until_now)

    def salvage(self, run: Run) -> Evidence | None:
        """Log and return the evidence of a collector that could not stop; None if it has none."""
        try:
            with self._turn:
                evidence = self._collector.evidence(run)
        except Exception as error:  # noqa: BLE001 - a broken collector may raise anything, again
            log.error("run %s could not stop; its evidence: none (%s)", run.id, error)  # noqa: TRY400 - the caller did
            return None
        log.error("run %s could not stop; its evidence: %s", run.id, json.dumps(evidence.as_json()))
        return evidence

    def evidence_until_now(self, run: Callable[[], Run | None]) -> Evidence | None:
        """The evidence of a run that goes on, or None if `run` returns None.

        A stop waits for one such call at most, and calls in quick succession return the same evidence.
        """
        if not self._turn.acquire(blocking=False):
            return self._latest
        try:
            running, before = run(), self._latest
            if running and before and 0 <= running.duration_ms - before.run.duration_ms < FRESH_MS:
                return before
            self._latest = self._collector.evidence(running) if running else None
            return self._latest
        finally:
            self._turn.release()

    def status(self) -> CollectorStatus:
        """The present status, or the last known one while the collector is at work."""
        if self._turn.acquire(blocking=False):
            try:
                self._status = self._collector.status()
            finally:
                self._turn.release()
        return self._status
