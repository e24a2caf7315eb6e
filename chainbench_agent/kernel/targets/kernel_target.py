"""A target as the kernel side knows it: the whole machine, a process tree or a cgroup."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from chainbench_agent.errors import InputError
from chainbench_agent.evidence.model import Target
from chainbench_agent.host import procfs
from chainbench_agent.host.pid_namespaces import local_pid
from chainbench_agent.kernel.targets import members
from chainbench_agent.kernel.targets.cgroups import find_cgroup
from chainbench_agent.kernel.targets.process_tree import nearby_processes, processes_of_tree

INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO of the kernel's proc_ns.h.  BPF programs see only pids of this namespace."""


class TargetKind(IntEnum):
    """`enum cb_target_kind` of probes/target.h."""

    MACHINE = 0
    TREE = 1
    CGROUP = 2


@dataclass(frozen=True, slots=True)
class KernelTarget:
    """A target as the kernel side knows it."""

    kind: TargetKind = TargetKind.MACHINE
    root: int = 0
    """TREE: the process at its root."""
    born_ticks: int = 0
    """TREE: when `root` was created, as its pid may later be that of another process."""
    directory: Path = Path()
    """CGROUP: its directory."""
    cgroup_id: int = 0
    cgroup_level: int = 0
    """CGROUP: its depth below the root of the agent's cgroup namespace."""
    path: str = ""
    """CGROUP: its path in the agent's cgroup namespace, if the runner is in another one."""

    def processes(self) -> set[int]:
        """The processes that are now in the target; empty for the whole machine, for which they are not needed."""
        if self.kind == TargetKind.TREE:
            return processes_of_tree(self.root) if members.born_ticks(self.root) == self.born_ticks else set()
        return members.processes_of_cgroup(self.directory) if self._still_exists() else set()

    def threads(self) -> set[int]:
        """CGROUP: the threads that are now in it."""
        return members.ids_in_cgroup(self.directory, "cgroup.threads") if self._still_exists() else set()

    def as_evidence(self, asked: Target, agent: Collection[int]) -> Target:
        """The target for the evidence: as it was `asked` for, with pids and paths of the agent's namespaces."""
        changes: dict[str, Any] = {"pid_namespace": INITIAL_PID_NAMESPACE}
        if self.kind == TargetKind.TREE:
            near = nearby_processes(self.root, agent)
            changes |= {"pid": self.root, "outside": near.shown, "outside_not_shown": near.not_shown}
            changes |= {"pid_as_sent": asked.pid} if asked.pid != self.root else {}
        if self.path:
            changes |= {"cgroup": self.path, "cgroup_as_sent": asked.cgroup}
        return asked.model_copy(update=changes)

    def _still_exists(self) -> bool:
        """Whether the cgroup exists.  One that was created again by that name has another id."""
        with suppress(OSError):
            return self.kind == TargetKind.CGROUP and self.directory.stat().st_ino == self.cgroup_id
        return False


def resolve(target: Target, caller: int | None = None) -> KernelTarget:
    """Finds the target of a request.  Raises InputError, with a remedy, if there is no such process or cgroup."""
    if target.pid is not None:
        root = _pid_of_process(local_pid(target.pid, caller))
        return KernelTarget(TargetKind.TREE, root, members.born_ticks(root))
    if target.cgroup is not None:
        found = find_cgroup(target.cgroup, caller)
        number = found.directory.stat().st_ino
        path = found.path if found.translated else ""
        return KernelTarget(
            TargetKind.CGROUP, directory=found.directory, cgroup_id=number, cgroup_level=found.level, path=path
        )
    return KernelTarget()


def _pid_of_process(number: int) -> int:
    """Checks that a pid is that of a living process: /proc also has threads, but these have no descendants."""
    tgid = int(procfs.status(members.PROC / str(number))["Tgid"])
    if tgid != number:
        raise InputError("pid", f"{number} is a thread", f"send the pid of its process, {tgid}")
    if members.has_ended(number):
        raise InputError("pid", f"process {number} has ended, and is a zombie", "send the pid of a running process")
    return number
