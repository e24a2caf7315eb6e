"""The state of the collector, of its modules and hooks, and of the store: which of them work, and why others do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from chainbench_agent.evidence.model import BackendName

State = Literal["up", "degraded", "down", "off"]


@dataclass(frozen=True, slots=True)
class HookStatus:
    """One hook: the source it is attached to, or why there is none."""

    name: str
    source: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ModuleStatus:
    """`degraded`: some metrics are missing; `off`: not selected.  `unavailable`: metric → reason."""

    name: str
    state: State
    reason: str = ""
    sources: dict[str, str] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    options: dict[str, State] = field(default_factory=dict)
    """An option is `off` unless it was selected by name."""

    @property
    def loaded(self) -> tuple[str, ...]:
        """The names that a run can select: the module, and its options that were loaded."""
        options = (f"{self.name}:{option}" for option, state in self.options.items() if state != "off")
        return () if self.state == "off" else (self.name, *options)


@dataclass(frozen=True, slots=True)
class CollectorStatus:
    """`reason` and `remedy` say why the backend is not `ebpf`; they are empty when it is."""

    backend: BackendName
    modules: Sequence[ModuleStatus]
    hooks: Sequence[HookStatus] = ()
    reason: str = ""
    remedy: str = ""
    details: dict[str, str] = field(default_factory=dict)
    """Kernel, BCC version, where the headers come from."""
    loss_causes: Sequence[str] = ()
    """All that `loss.causes` of the evidence may name."""

    @property
    def loaded(self) -> tuple[str, ...]:
        """Every module and option that a run can select."""
        return tuple(name for module in self.modules for name in module.loaded)


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """`off`: nothing is to be stored; `down`: nothing can be, and `reason` says why and what would help.

    `moved_aside`: where a corrupt database was moved when a new one was begun.
    `notice`: what happened to the database under this agent, when another was begun.
    `runs`: how many ended runs were stored when one last ended or was deleted.  `bytes`: of SQLite's files.
    """

    kind: Literal["none", "sqlite", "postgresql"]
    state: Literal["up", "down", "off"]
    location: str = ""
    reason: str = ""
    moved_aside: str = ""
    notice: str = ""
    runs: int | None = None
    bytes: int | None = None
