"""Who is in the target: looked up in /proc and in the cgroup file system when a run begins, and when it ends.

In between the kernel follows the target itself (probes/machines/follow.h).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from chainbench_agent.errors import InputError
from chainbench_agent.evidence.model import Target
from chainbench_agent.host import procfs
from chainbench_agent.host.pid_namespaces import Peer, pid_here
from chainbench_agent.kernel.targets.cgroups import find
from chainbench_agent.kernel.targets.lineage import everyone, outside, process_tree

PROC = Path("/proc")

INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO of the kernel's proc_ns.h.  BPF programs see no other numbers than those of this namespace."""

DEAD = frozenset("ZXx")
"""States in /proc/PID/stat of a thread that has ended."""


class Kind(IntEnum):
    """`enum cb_target_kind` of probes/lib/target.h."""

    MACHINE = 0
    TREE = 1
    CGROUP = 2


@dataclass(frozen=True, slots=True)
class KernelTarget:
    """A target as the kernel side knows it."""

    kind: Kind = Kind.MACHINE
    root: int = 0
    """TREE: the process that it begins with."""
    born_ticks: int = 0
    """TREE: when that was born: later the number may be another's."""
    directory: Path = Path()
    """CGROUP: where it is."""
    cgroup_id: int = 0
    cgroup_level: int = 0
    """Below the root of the agent's cgroup namespace."""
    path: str = ""
    """CGROUP: in the agent's cgroup namespace, if the runner that named it has another one."""

    def processes(self) -> set[int]:
        """The processes in it at present; none for the whole machine, where nobody asks."""
        if self.kind == Kind.TREE:
            return process_tree(self.root) if born_ticks(self.root) == self.born_ticks else set()
        return processes_of_cgroup(self.directory) if self._has_its_place() else set()

    def threads(self) -> set[int]:
        """CGROUP: the threads in it at present."""
        return in_cgroup(self.directory, "cgroup.threads") if self._has_its_place() else set()

    def told(self, asked: Target, agent: Collection[int]) -> Target:
        """What was `asked` for, as the evidence has it: the numbers and paths are the agent's own."""
        said: dict[str, Any] = {"pid_namespace": INITIAL_PID_NAMESPACE}
        if self.kind == Kind.TREE:
            near = outside(self.root, agent)
            said |= {"pid": self.root, "outside": near.shown, "outside_not_shown": near.not_shown}
            said |= {"pid_as_sent": asked.pid} if asked.pid != self.root else {}
        if self.path:
            said |= {"cgroup": self.path, "cgroup_as_sent": asked.cgroup}
        return asked.model_copy(update=said)

    def _has_its_place(self) -> bool:
        """A cgroup that was removed and made again by that name is another one: the kernel side knows it by its id."""
        with suppress(OSError):
            return self.kind == Kind.CGROUP and self.directory.stat().st_ino == self.cgroup_id
        return False


def resolve(target: Target, peer: Peer | None = None) -> KernelTarget:
    """Raises InputError, saying what to do, if there is no such process or cgroup."""
    if target.pid is not None:
        root = _process(pid_here(target.pid, peer))
        return KernelTarget(Kind.TREE, root, born_ticks(root))
    if target.cgroup is not None:
        found = find(target.cgroup, peer)
        number = found.directory.stat().st_ino
        path = found.path if found.translated else ""
        return KernelTarget(
            Kind.CGROUP, directory=found.directory, cgroup_id=number, cgroup_level=found.level, path=path
        )
    return KernelTarget()


def _process(number: int) -> int:
    """A thread has a place in /proc as well, but only a process has descendants."""
    tgid = int(procfs.status(PROC / str(number))["Tgid"])
    if tgid != number:
        raise InputError("pid", f"{number} is a thread", f"send the number of its process, {tgid}")
    if has_ended(number):
        raise InputError("pid", f"process {number} has ended, and is a zombie", "send a process that still runs")
    return number


def has_ended(pid: int) -> bool:
    """Whether no thread of a process lives.  Its leader may have ended before the others."""
    try:
        states = [procfs.stat(f"{PROC}/{pid}").state]
        if states[0] in DEAD:
            tasks = f"{PROC}/{pid}/task"
            states += [procfs.stat(f"{tasks}/{tid}").state for tid in os.listdir(tasks)]  # noqa: PTH208
    except OSError:
        return not (PROC / str(pid)).exists()
    return all(state in DEAD for state in states)


def all_processes() -> set[int]:
    return set(everyone())


def born_ticks(process: int) -> int:
    """When a process was born, in clock ticks since the machine began; 0 if it is gone."""
    with suppress(OSError):
        return procfs.stat(PROC / str(process)).born_ticks
    return 0


def processes_of_cgroup(directory: Path) -> set[int]:
    """Those that are in a cgroup, or below it, or have a thread there.

    A threaded cgroup has threads of a process, and the kernel does not list processes there (EOPNOTSUPP).
    """
    found: set[int] = set()
    for group in (directory, *(file.parent for file in directory.glob("**/cgroup.procs") if file.parent != directory)):
        try:
            found |= _numbers(group / "cgroup.procs")
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                found |= {process for thread in in_cgroup(group, "cgroup.threads") if (process := _process_of(thread))}
    return found


def _process_of(thread: int) -> int:
    """0 if it is gone."""
    with suppress(OSError):
        return int(procfs.status(PROC / str(thread))["Tgid"])
    return 0


def _numbers(file: Path) -> set[int]:
    return set(map(int, file.read_bytes().split()))


def in_cgroup(directory: Path, name: str) -> set[int]:
    """The numbers in the files of that name, `cgroup.procs` or `cgroup.threads`, in a cgroup and below it."""
    found: set[int] = set()
    for file in (directory / name, *directory.glob(f"**/{name}")):
        with suppress(OSError):
            found |= _numbers(file)
    return found


def seed(target: KernelTarget, add: Callable[[int], None], remove: Callable[[int], None]) -> int:
    """Add the processes of the tree until no new one turns up; answers how many.

    The kernel already adds the children of those that were added, so only what was forked before by others is to be
    found, and each pass over /proc finds a generation at least.  A process that has ended, or is a zombie,
    is removed again.
    """
    added: set[int] = set()
    while new := target.processes() - added:
        for pid in new:
            add(pid)
        added |= new
    for pid in added:
        if has_ended(pid):
            remove(pid)
            added = added - {pid}
    return len(added)
