"""What a collector is: the one interface behind which eBPF and mock data stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from chainbench_agent.evidence.model import BackendName, Evidence, Run, Target
from chainbench_agent.kernel.namespaces import Peer

State = Literal["up", "degraded", "down", "off"]


@dataclass(frozen=True, slots=True)
class HookStatus:
    """One hook: the source it is attached to, or why there is none."""

    name: str
    source: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ModuleStatus:
    """`degraded`: some metrics are missing; `off`: not asked for.  `unavailable`: metric → reason."""

    name: str
    state: State
    reason: str = ""
    sources: dict[str, str] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CollectorStatus:
    """What /status shows.  `reason` and `remedy` say why the backend is not `ebpf`; empty when it is."""

    backend: BackendName
    modules: Sequence[ModuleStatus]
    hooks: Sequence[HookStatus] = ()
    reason: str = ""
    remedy: str = ""
    details: dict[str, str] = field(default_factory=dict)
    """Kernel, BCC version, where the headers come from."""


class Collector(Protocol):
    """Collects for one run at a time; the caller (runs.py) sees to that."""

    def start(self, target: Target, peer: Peer | None = None) -> None:
        """Begin collecting for `target`: attach, take the first sample.

        `peer` is the connection that the request came by: a pid means what it means there.
        Raises InputError if there is no such target.
        """

    def evidence(self, run: Run) -> Evidence:
        """What has been collected so far; collection goes on."""

    def gone(self) -> bool:
        """Whether nothing is left of the target, so that nothing more can happen."""

    def stop(self) -> None:
        """End collecting: take the last sample, detach.  `evidence` then answers from that sample."""

    def status(self) -> CollectorStatus:
        """Which modules work, from which sources, and why the others do not."""

    def close(self) -> None:
        """Give everything back; the collector is of no further use."""
