"""A scripted collector for tests: what it answers, where it fails, how long it takes.

It also checks its caller: two calls at a time, or a second start without a stop, are an error.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from chainbench_agent.evidence.model import Evidence, Run, Section, Target
from chainbench_agent.kernel.reading.ring_buffer import Ring
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.model.status import CollectorStatus, HookStatus, ModuleStatus

STATUS = CollectorStatus(
    backend="ebpf",
    modules=(
        ModuleStatus(
            "runqlat",
            "up",
            sources={"histogram": "raw_tracepoint:sched_switch"},
            options={"by_cpu": "up", "by_class": "off"},
        ),
        ModuleStatus("exec", "degraded", unavailable={"forks": "no tracepoint"}),
        ModuleStatus("cpu", "off"),
    ),
    hooks=(
        HookStatus("sched_switch", "raw_tracepoint:sched_switch"),
        HookStatus("fork", reason="no tracepoint"),
    ),
    details={"kernel": "6.1.0"},
)


@dataclass
class FakeCollector:
    """`fails`: call → what it raises; `holds`: call → it waits until the event is set."""

    reported: CollectorStatus = STATUS
    sections: Mapping[str, Section] = field(default_factory=lambda: {"exec": {"exec_count": 53}})
    fails: dict[str, Exception] = field(default_factory=dict)
    holds: dict[str, threading.Event] = field(default_factory=dict)
    target_ended: bool = False
    request: RunRequest = field(default_factory=RunRequest)
    """The request of the run that was started last."""
    run_id: str = ""
    calls: list[str] = field(default_factory=list)
    collecting: bool = False
    entered: defaultdict[str, threading.Event] = field(default_factory=lambda: defaultdict(threading.Event))
    """Set when the call begins, so that a test can wait for it."""
    _busy: threading.Lock = field(default_factory=threading.Lock)

    ring: Ring | None = None

    def target_has_ended(self) -> bool:
        return self.target_ended

    def start(self, request: RunRequest, run_id: str = "") -> None:
        self.request, self.run_id = request, run_id
        with self._call("start"):
            if self.collecting:
                raise RuntimeError("start: is already collecting")
            self.collecting = True

    def evidence(self, run: Run) -> Evidence:
        with self._call("evidence"):
            return Evidence(
                available=self.reported.backend == "ebpf",
                source=self.reported.backend,
                reason=self.reported.reason,
                run=run,
                target=Target(),
                sections=dict(self.sections),
            )

    def stop(self) -> None:
        with self._call("stop"):
            if not self.collecting:
                raise RuntimeError("stop: is not collecting")
            self.collecting = False

    def status(self) -> CollectorStatus:
        with self._call("status"):
            return self.reported

    def close(self) -> None:
        with self._call("close"):
            self.collecting = False

    @contextmanager
    def _call(self, name: str) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError(f"{name}: another call is under way")
        try:
            self.calls.append(name)
            self.entered[name].set()
            if name in self.holds:
                self.holds[name].wait()
            if name in self.fails:
                raise self.fails[name]
            yield
        finally:
            self._busy.release()
