"""The evidence: the answer of a run.

The fixed parts are models.  A module's section is a mapping, because its keys come from the module's declaration; its
histograms stay HistogramCounts until `as_json`.  To read the numbers of an evidence, use evidence/figures.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from chainbench_agent.evidence.distribution import section_from_json, section_to_json

SCHEMA_VERSION = 2

Section = dict[str, Any]
"""Key → number, HistogramCounts, or a mapping or list of numbers."""
BackendName = Literal["ebpf", "mock"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Labels(_Model):
    """The texts with which the runner names what it measures."""

    scenario: str = ""
    impl: str = ""
    variant: str = ""
    commit: str = ""
    dataset: str = ""

    @classmethod
    def of(cls, labelled: Any) -> Labels:
        """The labels of a run, a report or a request."""
        return Labels(**{name: getattr(labelled, name) for name in Labels.model_fields})


class Run(Labels):
    """One collection, from start to stop."""

    id: str
    machine: str
    started_at: datetime
    duration_ms: float
    ended_by: Literal["stop", "shutdown", "max_duration", "target_gone", "start_failed", "agent_died", "running"]
    probes: tuple[str, ...] | None = None
    """The modules and options that the run selected; None: all."""
    sample_interval: int = 1
    """One in so many of the most frequent events was recorded (evidence/sampling_error.py)."""


Shares = Literal["session", "program image", "cgroup"]


class Outsider(_Model):
    """A process that may be thought to be in the target, and is not."""

    pid: int
    command: str
    shares: Shares
    """The property that it has in common with the target's first process."""


class Target(_Model):
    """The part of the machine whose events count: all, a process with its descendants, or a cgroup with all below it.

    The agent's own processes never count.  `processes_seen` and `threads_seen` include those that ended in the run.
    """

    kind: Literal["machine", "pid", "cgroup"] = "machine"
    pid: int | None = None
    cgroup: str | None = None
    processes_seen: int | None = None
    threads_seen: int | None = None
    pid_namespace: str | None = None
    """The PID namespace of all pids and tids in the evidence, as `readlink /proc/PID/ns/pid` names it."""
    pid_as_sent: int | None = None
    """The runner's own number, where it differs from `pid`."""
    cgroup_as_sent: str | None = None
    """The runner's own path, where it differs from `cgroup`."""
    outside: tuple[Outsider, ...] | None = None
    """Processes near the target's first that did not descend from it when the run began."""
    outside_not_shown: int | None = None


class SkippedProgram(_Model):
    """Events at a hook for which its program did not run, and the figures that lack them."""

    events: int
    metrics: list[str]


class Loss(_Model):
    """Events that happened but are not in the numbers, by cause."""

    total: int = 0
    causes: dict[str, int] = Field(default_factory=dict)
    programs_skipped: dict[str, SkippedProgram] | None = None
    """Hook → its skipped program; absent if every program always ran."""


class ProgramCost(_Model):
    hook: str
    source: str
    runs: int
    ns: int


class ModuleCost(_Model):
    """The cost of the programs that call a module: those that call only this one, and those that call others, too."""

    hooks: list[str]
    events: int
    bpf_ns_alone: int
    bpf_ns_shared: int
    ns_per_event_at_most: float
    cpu_percent_at_most: float
    """Charges the shared programs to this module in full, so the sum over all modules is more than the whole."""


class Cost(_Model):
    """The cost of measuring, by the kernel's own account.  `cpu_percent` is of all CPUs over the run.

    The kernel starts to count when a program has been entered; `bpf_ns` lacks the cost of entering, `entry_ns`.
    """

    cpu_percent: float
    bpf_ns: int
    events: int
    ns_per_event: float
    programs: list[ProgramCost]
    modules: dict[str, ModuleCost]
    entry_ns: int | None = None
    entry_ns_per_event: float | None = None
    entry_from: str | None = None
    """The way in which the cost of an entry was measured."""
    entry_excludes: list[str] | None = None
    """Hooks whose programs are not fed from a tracepoint: the cost of entering these is not known."""
    target_cpu_percent: float | None = None
    """The target's share of `bpf_ns` and `entry_ns`, in percent of its CPU time; without a target: of all threads."""
    target_cpu_percent_at_least: float | None = None
    target_cpu_percent_at_most: float | None = None
    """The bounds: none, and all, of the events at hooks that are not in `target_shares` were the target's."""
    target_shares: dict[str, float] | None = None
    """With a target: hook → its share of the events there, where its own figures show that."""
    unavailable: dict[str, str] | None = None
    """The fields that are not known → why."""


class CrossCheck(_Model):
    """The same thing counted by us and by the kernel itself, and what explains a difference."""

    ebpf: float
    kernel: float
    from_: str = Field(alias="from")
    note: str = ""


class Violation(_Model):
    """Two numbers of the evidence that do not fit, by more than the tolerance; see evidence/self_check.py."""

    invariant: str
    left: float
    right: float
    tolerance: float
    unit: str
    note: str


class SelfCheck(_Model):
    """How many comparisons the evidence made of its own numbers, and which of them do not hold."""

    checked: int
    violations: list[Violation]


class Evidence(_Model):
    """The answer of `/stop`.  In the JSON, the `sections` are at the top level, next to the fixed parts."""

    schema_version: int = SCHEMA_VERSION
    available: bool
    source: BackendName
    reason: str = ""
    """Why the numbers are mock data; empty when they are measured."""
    run: Run
    target: Target
    sections: dict[str, Section]
    ledger: Section | None = None
    """With a target: where all the time of its threads went (evidence/ledger.py)."""
    unavailable: dict[str, str] = Field(default_factory=dict)
    """Module → why it is absent; also `cost`, and with a target `ledger`, where they are absent."""
    loss: Loss | None = None
    cost: Cost | None = None
    cross_check: dict[str, CrossCheck] = Field(default_factory=dict)
    self_check: SelfCheck | None = None
    """None for mock data, whose numbers are made up one by one."""

    @model_serializer(mode="wrap")
    def _flat(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = handler(self)
        sections = fields.pop("sections")
        head = {key: fields.pop(key) for key in ("schema_version", "available", "source", "reason", "run", "target")}
        return {**head, **sections, **fields}

    def as_json(self) -> dict[str, Any]:
        """Plain types, ready for JSON; what has no value is left out."""
        sections = {name: section_to_json(section) for name, section in self.sections.items()}
        return self.model_copy(update={"sections": sections}).model_dump(mode="json", by_alias=True, exclude_none=True)

    @classmethod
    def from_json(cls, evidence: Mapping[str, Any]) -> Evidence:
        """Reverses `as_json`.  ValidationError if an agent with other fields made it."""
        fixed = {name: value for name, value in evidence.items() if name in cls.model_fields}
        sections = {name: value for name, value in evidence.items() if name not in cls.model_fields}
        found = cls.model_validate({**fixed, "sections": sections})
        typed = {name: section_from_json(section) for name, section in found.sections.items()}
        return found.model_copy(update={"sections": typed})
