"""The answer of `GET /status`."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from chainbench_agent.host.environment import VERSION
from chainbench_agent.logs.writer import REMEDY, log_status
from chainbench_agent.model.status import CollectorStatus, HookStatus, ModuleStatus, StoreStatus
from chainbench_agent.runs.running import RunsStatus
from chainbench_agent.web.response_models import AgentItself, Hook, Log, Module, Status, Store


def status_of(status: RunsStatus, machine: str) -> Status:
    """The run that is on, what collects and why the rest does not, and what the agent itself costs."""
    active, collector = status.active, status.collector
    return Status(
        status=status.phase,
        running=status.phase == "running",
        run_id=active.id if active else None,
        labels=active.request.labels if active else None,
        started_at=timestamp(active.started_at) if active else None,
        elapsed_ms=round(status.elapsed_ms, 3) if active else None,
        probes=list(active.request.selection.probes) if active else None,
        sample_interval=active.request.selection.sample_interval if active else None,
        **_given({"failure": status.failure}),
        machine=machine,
        **backend_fields(collector),
        modules={module.name: _module(module) for module in collector.modules},
        hooks={hook.name: _hook(hook) for hook in collector.hooks},
        details=collector.details,
        store=_store(status.store),
        agent=_agent(),
    )


def timestamp(moment: datetime) -> str:
    """A moment in UTC, written as the evidence writes it."""
    return moment.isoformat().replace("+00:00", "Z")


def backend_fields(collector: CollectorStatus) -> dict[str, Any]:
    """Whether the numbers will be measured, and if not, why and what would help."""
    return {
        "backend": collector.backend,
        "available": collector.backend == "ebpf",
        **_given({"reason": collector.reason, "remedy": collector.remedy}),
    }


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that have a value; an answer leaves out the others."""
    return {name: value for name, value in fields.items() if value not in ("", None, {})}


def _store(store: StoreStatus) -> Store:
    return Store(**_given(asdict(store)))


def _module(module: ModuleStatus) -> Module:
    fields = {
        "reason": module.reason,
        "options": module.options,
        "sources": module.sources,
        "unavailable": module.unavailable,
    }
    return Module(state=module.state, **_given(fields))


def _hook(hook: HookStatus) -> Hook:
    return Hook(**_given({"source": hook.source, "reason": hook.reason}))


def _agent() -> AgentItself:
    """The worker process; the master that watches over it is not counted."""
    resident_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return AgentItself(
        version=VERSION,
        pid=os.getpid(),
        resident_kib=resident_pages * resource.getpagesize() // 1024,
        cpu_seconds=round(time.process_time(), 3),
        log=_log(),
    )


def _log() -> Log:
    """How many log records are missing on stderr, and why."""
    found = log_status()
    why = {"reason": found.reason, "remedy": REMEDY} if found.dropped else {}
    return Log(records_dropped=found.dropped, **why)
