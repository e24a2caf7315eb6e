"""Who is in the target: looked up in /proc and in the cgroup file system when a run begins, and when it ends.

In between the kernel follows the target itself (probes/follow.h).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

from chainbench_agent.errors import InputError
from chainbench_agent.evidence.model import Target
from chainbench_agent.evidence.sample import OpenInterval, Sleeper, TaskState, Thread
from chainbench_agent.kernel import procfs
from chainbench_agent.kernel.namespaces import Peer, pid_here
from chainbench_agent.loading.syscall_names import syscalls
from chainbench_agent.probes.offcpu import NO_SYSCALL

PROC = Path("/proc")
MOUNTS = Path("/proc/self/mounts")

KERNEL_THREAD = 0x00200000
"""PF_KTHREAD, of the flags in /proc/PID/stat.  Such a thread makes no calls; its registers, empty, look like call 0."""


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
    tgid = int(procfs.status(PROC / str(number))["Tgid"])
    if tgid != number:
        raise InputError("pid", f"{number} is a thread", f"send the number of its process, {tgid}")
    return number


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
                yield int(entry), procfs.stat(f"{PROC}/{entry}").parent


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
    found, and each pass over /proc finds a generation at least.  A process that ended meanwhile is removed again.
    """
    added: set[int] = set()
    while new := target.processes() - added:
        for pid in new:
            add(pid)
        added |= new
    for pid in added:
        if not (PROC / str(pid)).exists():
            remove(pid)
            added = added - {pid}
    return len(added)


def schedstat(processes: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Thread id → (on_cpu_ns, runnable_ns) since it was born, by the kernel's own account."""
    found = {}
    for _, tid, directory in _tasks(processes):
        with suppress(OSError, ValueError):
            on_cpu_ns, runnable_ns, _ = map(int, procfs.read_page(f"{directory}/schedstat").split())
            found[tid] = (on_cpu_ns, runnable_ns)
    return found


def older(threads: Iterable[int], began_ns: int) -> frozenset[int]:
    """Those that were born before then, to a clock tick."""
    asleep_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    began = (began_ns + asleep_ns) * os.sysconf("SC_CLK_TCK") // 1_000_000_000
    found = set()
    for tid in threads:
        with suppress(OSError):
            if procfs.stat(f"{PROC}/{tid}").born_ticks < began:
                found.add(tid)
    return frozenset(found)


def sleepers(
    processes: Iterable[int], seen: set[int], began_ns: int, outside: Mapping[int, int]
) -> tuple[Sleeper, ...]:
    """The threads of `processes` that are not among those `seen` at work.

    They made no move since the run began, or since they were last seen `outside`: thread id → when.
    """
    found = []
    for pid, tid, directory in _tasks(processes):
        if tid not in seen:
            with suppress(OSError):
                command, fields = procfs.stat(directory)
                thread = Thread(tid, pid, command, outside.get(tid, began_ns))
                found.append(_sleeper(thread, fields, directory))
    return tuple(found)


def _tasks(processes: Iterable[int]) -> Iterator[tuple[int, int, str]]:
    """Process, thread, and the thread's directory: a string, as ten thousand Path objects cost half a second."""
    for pid in processes:
        tasks = f"{PROC}/{pid}/task"
        with suppress(OSError):
            yield from ((pid, int(tid), f"{tasks}/{tid}") for tid in os.listdir(tasks))  # noqa: PTH208


def _sleeper(thread: Thread, fields: list[str], directory: str) -> Sleeper:
    state, flags = fields[0], fields[6]
    number = "" if int(flags) & KERNEL_THREAD else procfs.word(f"{directory}/syscall")
    function = procfs.word(f"{directory}/wchan")
    return Sleeper(
        thread,
        int(number) if number.isdigit() and int(number) in syscalls(os.uname().machine) else NO_SYSCALL,
        "" if function == "0" else function,
        state == "R",
    )
