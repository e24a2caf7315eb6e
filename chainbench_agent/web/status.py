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


def status_json(status: RunsStatus, machine: str) -> dict[str, Any]:
    """The run that is on, what collects and why the rest does not, and what the agent itself costs.

    `run_id`, `labels`, `started_at`, `elapsed_ms`, `probes` and `sample_interval` are null when no run is on.
    """
    active = status.active
    return {
        "status": status.phase,
        "running": status.phase == "running",
        "run_id": active.id if active else None,
        "labels": active.request.labels.model_dump() if active else None,
        "started_at": timestamp(active.started_at) if active else None,
        "elapsed_ms": round(status.elapsed_ms, 3) if active else None,
        "probes": active.request.selection.probes if active else None,
        "sample_interval": active.request.selection.sample_interval if active else None,
        **({"failure": status.failure} if status.failure else {}),
        "machine": machine,
        **backend_json(status.collector),
        "modules": {module.name: _module(module) for module in status.collector.modules},
        "hooks": {hook.name: _hook(hook) for hook in status.collector.hooks},
        "details": status.collector.details,
        "store": store_json(status.store),
        "agent": _agent(),
    }


def timestamp(moment: datetime) -> str:
    """A moment in UTC, written as the evidence writes it."""
    return moment.isoformat().replace("+00:00", "Z")


def backend_json(collector: CollectorStatus) -> dict[str, Any]:
    """Whether the numbers will be measured, and if not, why and what would help."""
    why_not = {"reason": collector.reason, "remedy": collector.remedy}
    return {
        "backend": collector.backend,
        "available": collector.backend == "ebpf",
        **{name: text for name, text in why_not.items() if text},
    }


def store_json(store: StoreStatus) -> dict[str, str | int]:
    """Where runs are kept; `down` with the reason, and where a corrupt database was moved to."""
    return {name: value for name, value in asdict(store).items() if value not in ("", None)}


def _module(module: ModuleStatus) -> dict[str, Any]:
    known = {
        "reason": module.reason,
        "options": module.options,
        "sources": module.sources,
        "unavailable": module.unavailable,
    }
    return {"state": module.state, **{name: value for name, value in known.items() if value}}


def _hook(hook: HookStatus) -> dict[str, str]:
    known = {"source": hook.source, "reason": hook.reason}
    return {name: value for name, value in known.items() if value}


def _agent() -> dict[str, Any]:
    """Of this process; the master that watches over it is not counted."""
    resident_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "version": VERSION,
        "pid": os.getpid(),
        "resident_kib": resident_pages * resource.getpagesize() // 1024,
        "cpu_seconds": round(time.process_time(), 3),
        "log": _log(),
    }


def _log() -> dict[str, Any]:
    """How many log records are missing on stderr, and why."""
    found = log_status()
    why = {"reason": found.reason, "remedy": REMEDY} if found.dropped else {}
    return {"records_dropped": found.dropped, **why}
