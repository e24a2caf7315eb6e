"""The run that is read: its number, its target, its edges."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from chainbench_agent.kernel.targets.kernel_target import KernelTarget, TargetKind


class Current(NamedTuple):
    """The run that is read."""

    run: int
    target: KernelTarget
    began_ns: int
    present: AbstractSet[int]
    """The target's processes now; none for the whole machine."""
    seeds: int
    """How many processes were in the target when the run began."""
    not_emptied: Mapping[str, OSError]
    """Module → why it may have something of the run before."""

    @property
    def targeted(self) -> bool:
        return self.target.kind != TargetKind.MACHINE


class Edge(NamedTuple):
    """The moment at which a run begins or ends."""

    at_ns: int
    disk_ios: Mapping[int, int]
    """See Sample.disk_ios; read as near to the moment as possible, because no hook sees some disks."""
