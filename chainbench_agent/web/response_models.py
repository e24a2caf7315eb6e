"""What the calls answer, for the API document; the tests hold real answers against it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from chainbench_agent.evidence.model import BackendName, Evidence, Labels, Target
from chainbench_agent.model.status import State
from chainbench_agent.web.ignored_fields import MayIgnore


class _Backend(BaseModel):
    backend: BackendName
    available: bool = Field(description="Whether the numbers are measured.")
    reason: str = Field("", description="Why they are not; left out when they are.")
    remedy: str = Field("", description="What would change that.")


class Started(_Backend, Labels, MayIgnore):
    """The run that has begun."""

    status: Literal["started"]
    run_id: str
    machine: str
    started_at: str
    target: Target
    probes: list[str] = Field(description="The modules and options that collect.")
    sample_interval: int


class Stopped(Evidence, MayIgnore):
    """The evidence of the run that has ended."""

    not_kept: str = Field("", description="Why it is not in the store; left out when it is, or is not meant to be.")


class EvidenceAnswer(MayIgnore):
    """The evidence of the run that finished last."""

    evidence: Evidence


class Reported(MayIgnore):
    status: Literal["metrics_reported"]


class Module(BaseModel):
    """`reason` where it is down, `unavailable`: metric → reason."""

    state: State
    reason: str = ""
    options: dict[str, State] = {}
    sources: dict[str, str] = {}
    unavailable: dict[str, str] = {}


class Hook(BaseModel):
    """What it is attached to, or why to nothing."""

    source: str = ""
    reason: str = ""


class Store(BaseModel):
    """Where runs are kept.  `moved_aside`: where a corrupt database lies, since a new one was begun.

    `notice`: that the database was removed or replaced under the agent, and what was lost with it.
    `runs`: how many that ended, as of the last one.  `bytes`: of SQLite's files.
    """

    kind: Literal["none", "sqlite", "postgresql"]
    state: Literal["up", "down", "off"]
    location: str = ""
    reason: str = ""
    moved_aside: str = ""
    notice: str = ""
    runs: int | None = None
    bytes: int | None = None


class Log(BaseModel):
    """What this process has logged and could not write to stderr."""

    records_dropped: int
    reason: str = ""
    remedy: str = ""


class AgentItself(BaseModel):
    version: str
    pid: int
    resident_kib: int
    cpu_seconds: float
    log: Log


class Status(_Backend, MayIgnore):
    """`run_id` and the rest of the run are null when none is on."""

    status: Literal["idle", "starting", "running", "stopping"]
    running: bool
    run_id: str | None
    labels: Labels | None
    started_at: str | None
    elapsed_ms: float | None
    probes: list[str] | None
    sample_interval: int | None
    failure: str = Field("", description="Why the last run failed, until one starts.")
    machine: str
    modules: dict[str, Module]
    hooks: dict[str, Hook]
    details: dict[str, str]
    store: Store
    agent: AgentItself


class FieldError(BaseModel):
    field: str
    message: str
    remedy: str = ""


class Problem(BaseModel):
    """RFC 9457: what is wrong, and what to do."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
    remedy: str = ""
    errors: list[FieldError] = []


class ApiDocument(BaseModel):
    """OpenAPI 3.1."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
