"""The current run, and what ends it if no `/stop` does."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from chainbench_agent.evidence.model import Evidence, Run
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.model.status import CollectorStatus, StoreStatus

Phase = Literal["idle", "starting", "running", "stopping"]
EndedBy = Literal["stop", "shutdown", "max_duration", "target_gone", "start_failed", "running"]

GONE_S = 5.0
"""How long a target must have ended before its run ends; a runner may be between two processes."""

WATCH_S = 1.0
"""How often the watch looks at the current run."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CurrentRun:
    """The run that is starting, running or stopping.  Its times are those of the request until collecting has begun."""

    id: str
    request: RunRequest
    started_at: datetime
    started_ns: int

    @property
    def words(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.request.labels)

    def now(self, phase: Phase, now_ns: int) -> str:
        """The run, its phase and its age, for a request that it refuses."""
        return f"run {self.id} ({self.words}) is {phase}, {self.elapsed_ms(now_ns) / 1000:.1f} s old"

    def elapsed_ms(self, now_ns: int) -> float:
        return (now_ns - self.started_ns) / 1e6

    def run(self, machine: str, now_ns: int, ended_by: EndedBy) -> Run:
        """The run as its evidence describes it, if it ends now."""
        return Run(
            **self.request.labels.model_dump(),
            id=self.id,
            machine=machine,
            started_at=self.started_at,
            duration_ms=self.elapsed_ms(now_ns),
            ended_by=ended_by,
            probes=self.request.selection.probes or None,
            sample_interval=self.request.selection.sample_interval,
        )


def new_id(now: datetime) -> str:
    """Sorts by time.  The random part makes ids differ when the clock is set back, and among agents with one store."""
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class RunsStatus:
    """`active` is None when idle; `elapsed_ms` is 0.0 until collecting has begun.

    `failure` says why the last run could not start or stop, until one starts.
    """

    phase: Phase
    active: CurrentRun | None
    elapsed_ms: float
    failure: str
    collector: CollectorStatus
    store: StoreStatus


class Watch:
    """Decides whether a run's time is over, or its target has ended for a while."""

    def __init__(self, active: CurrentRun, target_has_ended: Callable[[], bool]) -> None:
        self._active = active
        self._longest_s = active.request.longest_s
        self._target_has_ended = target_has_ended
        self._ended_since_ns: int | None = None

    def why_ended(self, clock: Callable[[], int], is_over: Callable[[float], bool]) -> EndedBy | None:
        """Look until there is a reason to end the run; None if it `is_over` (called with a time to wait) before."""
        while not is_over(self.pause_s(clock())):
            if reason := self.why_end(clock()):
                return reason
        return None

    def pause_s(self, now_ns: int) -> float:
        """How long to wait before looking again."""
        left_s = self._longest_s - self._active.elapsed_ms(now_ns) / 1e3
        return min(WATCH_S, max(left_s, 0.0))

    def why_end(self, now_ns: int) -> EndedBy | None:
        """The reason to end the run now; None if it goes on."""
        if self._active.elapsed_ms(now_ns) / 1e3 >= self._longest_s:
            return "max_duration"
        if not self._has_target_ended():
            self._ended_since_ns = None
            return None
        if self._ended_since_ns is None:
            self._ended_since_ns = now_ns
        return "target_gone" if (now_ns - self._ended_since_ns) / 1e9 >= GONE_S else None

    def _has_target_ended(self) -> bool:
        """A collector that fails here does not prevent the run from ending in time."""
        try:
            return self._target_has_ended()
        except Exception:
            log.exception("run %s: it is not known whether its target has ended", self._active.id)
            return False


def log_violations(evidence: Evidence) -> None:
    """Log where the evidence contradicts itself: that is a bug of the agent."""
    for one in evidence.self_check.violations if evidence.self_check else ():
        log.error("run %s: %s: %s, %s %s", evidence.run.id, one.note, one.left, one.right, one.unit)
