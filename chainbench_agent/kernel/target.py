"""Who is in the target: looked up in /proc and in the cgroup file system when a run begins, and when it ends.

In between the kernel follows the target itself (probes/follow.h).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

from chainbench_agent.errors import InputError
from chainbench_agent.evidence.model import Target
from chainbench_agent.evidence.sample import OpenInterval, TaskState
from chainbench_agent.kernel.namespaces import Peer, pid_here

PROC = Path("/proc")
MOUNTS = Path("/proc/self/mounts")

DEAD = frozenset("ZXx")
"""States in /proc/PID/stat of a thread that has ended."""


class Kind(IntEnum):
    """`enum cb_target_kind` of probes/target.h."""

    MACHINE = 0
    TREE = 1
    CGROUP = 2


@dataclass(frozen=True, slots=True)
class KernelTarget:
    """A target as the kernel side knows it."""

    kind: Kind = Kind.MACHINE
    root: int = 0
    """TREE: the process that it begins with."""
    directory: Path = Path()
    """CGROUP: where it is."""
    cgroup_id: int = 0
    cgroup_level: int = 0

    def processes(self) -> set[int]:
        """The processes in it at present; none for the whole machine, where nobody asks."""
        if self.kind == Kind.TREE:
            return process_tree(self.root)
        return in_cgroup(self.directory, "cgroup.procs") if self._has_its_place() else set()

    def threads(self) -> set[int]:
        """CGROUP: the threads in it at present."""
        return in_cgroup(self.directory, "cgroup.threads") if self._has_its_place() else set()

    def _has_its_place(self) -> bool:
        """A cgroup that was removed and made again by that name is another one: the kernel side knows it by its id."""
        with suppress(OSError):
            return self.kind == Kind.CGROUP and self.directory.stat().st_ino == self.cgroup_id
        return False


def resolve(target: Target, peer: Peer | None = None) -> KernelTarget:
    """Raises InputError, saying what to do, if there is no such process or cgroup."""
    if target.pid is not None:
        return KernelTarget(Kind.TREE, root=_process(pid_here(target.pid, peer)))
    if target.cgroup is not None:
        return _cgroup(target.cgroup)
    return KernelTarget()


def _process(number: int) -> int:
    """A thread has a place in /proc as well, but only a process has descendants."""
    status = (PROC / str(number) / "status").read_text()
    tgid = int(status.split("Tgid:")[1].split()[0])
    if tgid != number:
        raise InputError("pid", f"{number} is a thread", f"send the number of its process, {tgid}")
    if has_ended(number):
        raise InputError("pid", f"process {number} has ended, and is a zombie", "send a process that still runs")
    return number


def has_ended(pid: int) -> bool:
    """Whether no thread of a process lives.  Its leader may have ended before the others."""
    try:
        states = [stat_of(f"{PROC}/{pid}")[1][0]]
        if states[0] in DEAD:
            tasks = f"{PROC}/{pid}/task"
            states += [stat_of(f"{tasks}/{tid}")[1][0] for tid in os.listdir(tasks)]  # noqa: PTH208
    except OSError:
        return not (PROC / str(pid)).exists()
    return all(state in DEAD for state in states)


def _cgroup(path: str) -> KernelTarget:
    mount = cgroup2_mount()
    if mount is None:
        raise InputError("cgroup", "no cgroup v2 hierarchy is mounted here", "name a pid instead")
    inside = Path(path).relative_to(mount) if Path(path).is_relative_to(mount) else Path(path.lstrip("/"))
    directory = (mount / inside).resolve()
    if not directory.is_relative_to(mount) or not (directory / "cgroup.procs").exists():
        raise InputError(
            "cgroup", f"there is no cgroup {path} below {mount}", "see /proc/PID/cgroup for a process's own"
        )
    level = len(directory.relative_to(mount).parts)
    return KernelTarget(Kind.CGROUP, 0, directory, directory.stat().st_ino, level)


def cgroup2_mount() -> Path | None:
    mounts = (line.split() for line in MOUNTS.read_text().splitlines())
    return next((Path(where) for _, where, kind, *_ in mounts if kind == "cgroup2"), None)


def process_tree(root: int) -> set[int]:
    """`root` and its descendants, from one pass over /proc."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    tree, todo = set(), [root] if (PROC / str(root)).exists() else []
    while todo:
        pid = todo.pop()
        tree.add(pid)
        todo += children.get(pid, [])
    return tree


def all_processes() -> set[int]:
    return {pid for pid, _ in _parents()}


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.listdir(PROC):  # noqa: PTH208 - Path objects cost more than the rest together
        if entry.isdigit():
            with suppress(OSError):
                yield int(entry), int(stat_of(f"{PROC}/{entry}")[1][1])


def in_cgroup(directory: Path, name: str) -> set[int]:
    """The numbers in the files of that name, `cgroup.procs` or `cgroup.threads`, in a cgroup and below it."""
    found: set[int] = set()
    for file in (directory / name, *directory.glob(f"**/{name}")):
        with suppress(OSError):
            found |= set(map(int, file.read_text().split()))
    return found


def leave(tasks: Iterable[OpenInterval], inside: set[int]) -> Iterator[OpenInterval]:
    """`tasks`, of which some were moved out of the cgroup while off the CPUs: they are not `inside`, and live.

    Their part was over when they left their CPU, as the kernel side would have said had they come back (cb_follow()).
    """
    for task in tasks:
        away = task.state not in (TaskState.RUNNING, TaskState.UNSEEN) and task.tid not in inside
        yield replace(task, state=TaskState.FREE) if away and (PROC / str(task.tid)).exists() else task


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


def text_of(path: str) -> str:
    """Of a file in /proc that fits into a page."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 4096).decode(errors="replace")
    finally:
        os.close(fd)


def stat_of(directory: str) -> tuple[str, list[str]]:
    """The command of a process or thread, and the fields of its `stat` from the state on."""
    command, _, fields = text_of(f"{directory}/stat").partition("(")[2].rpartition(")")
    return command, fields.split()
