"""Finds the descendants of a process, and the processes near it that are not its descendants.

/proc shows the parent of a process.  A daemon has lost its parent: the child that forked it has ended, and init has
adopted it.  It is recognized by its addresses: the kernel chooses at random where a program's code, stack and heap
begin when it executes the program, and a fork inherits these addresses.  So a process that has not executed a program
descends from the process that has, with the same addresses.  A daemon that executed another program is not in the
tree; the evidence names it as `outside`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from chainbench_agent.evidence.model import Outsider, Shares
from chainbench_agent.host import procfs

PROC = Path("/proc")
SHOWN = 10

_FORKED_NO_EXEC = 0x00000040  # PF_FORKNOEXEC
_RANDOMIZED = 0x00400000  # PF_RANDOMIZE

ProcessStats = Mapping[int, procfs.Stat]


class NearbyProcesses(NamedTuple):
    """The processes near a tree that are not in it, the first of them with details."""

    shown: tuple[Outsider, ...] = ()
    not_shown: int = 0


def all_processes() -> dict[int, procfs.Stat]:
    """Process → its `stat`, for all processes, from one pass over /proc."""
    found = {}
    for entry in os.listdir(PROC):  # noqa: PTH208 - Path objects cost more than the rest together
        if entry.isdigit():
            with suppress(OSError):
                found[int(entry)] = procfs.stat(f"{PROC}/{entry}")
    return found


def processes_of_tree(root: int) -> set[int]:
    """`root` and its descendants."""
    return _tree(root, all_processes())


def _tree(root: int, processes: ProcessStats) -> set[int]:
    children: dict[int, list[int]] = {}
    forked: dict[tuple[int, ...], list[int]] = {}
    for pid, stat in processes.items():
        children.setdefault(stat.parent, []).append(pid)
        if stat.flags & _FORKED_NO_EXEC:
            forked.setdefault(stat.image, []).append(pid)
    tree: set[int] = set()
    todo = [root] if root in processes else []
    while todo:
        pid = todo.pop()
        if pid not in tree:
            tree.add(pid)
            todo += children.get(pid, ())
            todo += forked.get(processes[pid].image, ()) if _executed_its_program(processes[pid]) else ()
    return tree


def _executed_its_program(process: procfs.Stat) -> bool:
    """Whether a process was not forked with its program, so that no unrelated process has the same random addresses."""
    return process.flags & (_FORKED_NO_EXEC | _RANDOMIZED) == _RANDOMIZED and process.stack > 1


def nearby_processes(root: int, agent: Collection[int]) -> NearbyProcesses:
    """The processes in the session or cgroup of `root` that are neither its descendants nor its ancestors.

    Processes that may have lost their parents come first: they are younger than `root`, and their parent is one that
    adopts others.
    """
    processes = all_processes()
    if root not in processes:
        return NearbyProcesses()
    ancestors = list(_ancestors(root, processes))
    inside = {*_tree(root, processes), *ancestors, *agent}
    others = {pid: stat for pid, stat in processes.items() if pid not in inside}
    near = _near(root, processes[root], others, {1, *ancestors})
    found = sorted(near, key=lambda line: (line[0], -line[1]))
    shown = tuple(Outsider(pid=pid, command=processes[pid].command, shares=shares) for _, pid, shares in found[:SHOWN])
    return NearbyProcesses(shown, len(found) - len(shown))


def _near(
    root: int, own: procfs.Stat, others: ProcessStats, adopters: Collection[int]
) -> Iterator[tuple[int, int, Shares]]:
    """(rank, process, what it shares with `root`) of each process near `root`."""
    group = _cgroup(root)
    for pid, stat in others.items():
        if stat.is_kernel_thread or stat.state in "ZX":
            continue
        adopted = stat.parent in adopters and stat.born_ticks >= own.born_ticks
        if stat.session == own.session:
            yield 0 if adopted else 2, pid, "session"
        elif stat.stack and stat.stack == own.stack and stat.flags & own.flags & _FORKED_NO_EXEC:
            yield 1, pid, "program image"
        elif group is not None and (adopted or group != b"/") and _cgroup(pid) == group:
            yield 1 if adopted else 3, pid, "cgroup"


def _cgroup(pid: int) -> bytes | None:
    with suppress(OSError):
        return procfs.cgroup(PROC / str(pid))
    return None


def _ancestors(pid: int, processes: ProcessStats) -> Iterator[int]:
    while (stat := processes.get(pid)) and stat.parent in processes:
        pid = stat.parent
        yield pid
