"""Models that the routes return; the API document is made from them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer

from chainbench_agent.evidence.model import BackendName, Evidence, Labels, Target
from chainbench_agent.model.status import State
from chainbench_agent.model.stored_run import Result, StoredRun, Summary
from chainbench_agent.web.ignored_fields import MayIgnore
from chainbench_agent.web.operation import Answer

Available = Annotated[bool, Field(description="Whether the numbers are measured.")]
Reason = Annotated[str, Field(description="Why they are not; left out when they are.")]
Remedy = Annotated[str, Field(description="What would change that.")]


class Started(MayIgnore):
    """The run that has begun."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["started"]
    run_id: str
    scenario: str = ""
    impl: str = ""
    variant: str = ""
    commit: str = ""
    dataset: str = ""
    machine: str
    started_at: str
    target: Target
    probes: list[str] = Field(description="The modules and options that collect.")
    sample_interval: int
    backend: BackendName
    available: Available
    reason: Reason = ""
    remedy: Remedy = ""


class Stopped(Evidence, MayIgnore):
    """The evidence of the run that has ended."""

    not_kept: str = Field(
        default="", description="Why it is not in the store; left out when it is, or is not meant to be."
    )

    @classmethod
    def of(cls, evidence: Evidence, not_kept: str) -> Stopped:
        return cls.model_construct(**dict(evidence), not_kept=not_kept)

    def as_json(self) -> dict[str, Any]:
        empty = {"ignored", "warnings", *(() if self.not_kept else ("not_kept",))}
        return {name: value for name, value in super().as_json().items() if name not in empty}


class EvidenceAnswer(MayIgnore):
    """The evidence of the run that finished last."""

    evidence: Evidence

    @field_serializer("evidence")
    def _as_stop_answered(self, evidence: Evidence) -> Mapping[str, Any]:
        return evidence.as_json()


class Reported(MayIgnore):
    status: Literal["metrics_reported"]


class Module(BaseModel):
    """`reason`: why it is down; `unavailable`: metric → reason."""

    state: State
    reason: str = ""
    options: dict[str, State] = {}
    sources: dict[str, str] = {}
    unavailable: dict[str, str] = {}


class Hook(BaseModel):
    """`source`: what the hook is attached to; `reason`: why it is attached to nothing."""

    source: str = ""
    reason: str = ""


class Store(BaseModel):
    """Where runs are stored.  `moved_aside`: where a corrupt database was moved when a new one was begun.

    `notice`: that the database was removed or replaced under the agent, and what was lost with it.
    `runs`: how many ended runs it had when the last one ended.  `bytes`: of SQLite's files.
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
    """Log records of this process that could not be written to stderr."""

    records_dropped: int
    reason: str = ""
    remedy: str = ""


class AgentItself(BaseModel):
    version: str
    pid: int
    resident_kib: int
    cpu_seconds: float
    log: Log


class Status(MayIgnore):
    """`run_id` and the rest of the run are null when none is on."""

    status: Literal["idle", "starting", "running", "stopping"]
    running: bool
    run_id: str | None
    labels: Labels | None
    started_at: str | None
    elapsed_ms: float | None
    probes: list[str] | None
    sample_interval: int | None
    failure: str = Field(default="", description="Why the last run failed, until one starts.")
    machine: str
    backend: BackendName
    available: Available
    reason: Reason = ""
    remedy: Remedy = ""
    modules: dict[str, Module]
    hooks: dict[str, Hook]
    details: dict[str, str]
    store: Store
    agent: AgentItself


class RunSummary(Labels, Answer):
    """A stored run without its evidence.  `source` is null without evidence, `failure` if nothing failed."""

    id: str
    machine: str
    started_at: datetime
    duration_ms: float = Field(description="Of one that is running: when it was last written to the store.")
    result: Result
    ended_by: str
    source: str | None
    failure: str | None

    @classmethod
    def of(cls, run: Summary) -> RunSummary:
        return cls(**_flat(run))


class RunPage(Answer):
    """`next` is the path of the next page, with older runs; null on the last one."""

    runs: list[RunSummary]
    next: str | None


class KeptRun(RunSummary):
    """`evidence` is as `POST /stop` answered it, or of the last checkpoint if agent or collector failed."""

    environment: dict[str, Any]
    evidence: dict[str, Any] | None

    @classmethod
    def of_stored(cls, run: StoredRun) -> KeptRun:
        evidence = None if run.evidence is None else dict(run.evidence)
        return cls(**_flat(run.summary), environment=dict(run.environment), evidence=evidence)


def _flat(run: Summary) -> dict[str, Any]:
    return {**run.flat(), "source": run.source or None, "failure": run.failure or None}


class FieldError(BaseModel):
    field: str
    message: str
    remedy: str = ""


class Problem(BaseModel):
    """RFC 9457: what is wrong and what to do."""

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
