"""A run as the store has it, and the query that finds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

from chainbench_agent.evidence.model import Labels, Run

Result = Literal["running", "finished", "failed", "interrupted"]
"""`interrupted`: the agent was shut down in the run, or died."""

LABELS = (*Labels.model_fields, "machine")
"""The labels that runs can be filtered by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run without its evidence.  `source` is empty while there is none; `failure` says what went wrong."""

    id: str
    labels: Labels
    machine: str
    started_at: datetime
    duration_ms: float
    ended_by: str
    result: Result
    source: str = ""
    failure: str = ""

    @classmethod
    def of(cls, run: Run, result: Result, source: str = "", failure: str = "") -> Summary:
        return cls(
            id=run.id,
            labels=Labels.of(run),
            machine=run.machine,
            started_at=run.started_at,
            duration_ms=run.duration_ms,
            ended_by=run.ended_by,
            result=result,
            source=source,
            failure=failure,
        )

    def flat(self) -> dict[str, Any]:
        """Field → value, with each label as a field of its own."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}  # asdict would copy all of it
        return {**values.pop("labels").model_dump(), **values}


@dataclass(frozen=True, slots=True)
class StoredRun:
    """`evidence` is JSON as `/stop` answers it, or None before a checkpoint; `environment`: host/environment.py."""

    summary: Summary
    environment: Mapping[str, Any]
    evidence: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """Which stored runs.  `labels`: of LABELS, name → value.  `before`: only runs whose id sorts before this one."""

    labels: Mapping[str, str] = field(default_factory=dict)
    result: Result | None = None
    before: str = ""
    limit: int = 50
