"""Who descends from a process, also where the parents are gone; and who is near it and does not.

/proc tells parents.  A daemon has lost its own: it was forked by a child that ended, and init has adopted it.  What it
still has is the memory that it was forked with: if it executed no program, its stack is where its ancestor's is, and in
it are the 16 random bytes that the kernel gave that one when it executed its program (AT_RANDOM).  So a process with
the same bytes that executed nothing descends from the one that did.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from chainbench_agent.evidence.model import Outsider, Shares
from chainbench_agent.kernel import procfs

PROC = Path("/proc")
SHOWN = 10

_FORKED_NO_EXEC = 0x00000040  # PF_FORKNOEXEC
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD
_AT_RANDOM = 25
_RANDOM_BYTES = 16

Everyone = Mapping[int, procfs.Stat]


class Outside(NamedTuple):
    """The processes near a tree that are not in it."""

    shown: tuple[Outsider, ...] = ()
    not_shown: int = 0


def everyone() -> dict[int, procfs.Stat]:
    """All processes, in one pass over /proc."""
    found = {}
    for entry in os.listdir(PROC):  # noqa: PTH208 - Path objects cost more than the rest together
        if entry.isdigit():
            with suppress(OSError):
                found[int(entry)] = procfs.stat(f"{PROC}/{entry}")
    return found


def process_tree(root: int) -> set[int]:
    """`root` and its descendants."""
    return _tree(root, everyone())


def _tree(root: int, processes: Everyone) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid, stat in processes.items():
        children.setdefault(stat.parent, []).append(pid)
    random = cache(_random_bytes)
    tree: set[int] = set()
    todo = [root] if root in processes else []
    while todo:
        while todo:
            pid = todo.pop()
            tree.add(pid)
            todo += [child for child in children.get(pid, ()) if child not in tree]
        todo += _orphans(tree, processes, random)
    return tree


def _orphans(tree: Collection[int], processes: Everyone, random: Callable[[int], bytes]) -> list[int]:
    """The processes outside of the tree that were forked from the program that one of the tree executed."""
    stacks: dict[int, list[int]] = {}
    for pid in tree:
        stat = processes[pid]
        if stat.stack and not stat.flags & _FORKED_NO_EXEC:
            stacks.setdefault(stat.stack, []).append(pid)
    return [
        pid
        for pid, stat in processes.items()
        if pid not in tree
        and stat.flags & _FORKED_NO_EXEC
        and any(random(pid) and random(pid) == random(member) for member in stacks.get(stat.stack, ()))
    ]


def _random_bytes(pid: int) -> bytes:
    """What the kernel gave the program that the process runs; nothing if it cannot be read, or was overwritten."""
    with suppress(OSError):
        words = struct.iter_unpack("@LL", (PROC / str(pid) / "auxv").read_bytes())
        address = next((value for key, value in words if key == _AT_RANDOM), 0)
        with (PROC / str(pid) / "mem").open("rb", buffering=0) as memory:
            memory.seek(address)
            found = memory.read(_RANDOM_BYTES)
        return found if any(found) else b""
    return b""


def outside(root: int, agent: Collection[int]) -> Outside:
    """Who is near `root`, in its session or cgroup, and is none of its descendants, nor of its ancestors.

    Those come first that may have lost their parents: they are younger than `root`, and a process that adopts others
    has them.
    """
    processes = everyone()
    if root not in processes:
        return Outside()
    ancestors = list(_ancestors(root, processes))
    inside = {*_tree(root, processes), *ancestors, *agent}
    others = {pid: stat for pid, stat in processes.items() if pid not in inside}
    near = _near(root, processes[root], others, {1, *ancestors})
    found = sorted(near, key=lambda line: (line[0], -line[1]))
    shown = tuple(Outsider(pid=pid, command=processes[pid].command, shares=shares) for _, pid, shares in found[:SHOWN])
    return Outside(shown, len(found) - len(shown))


def _near(
    root: int, own: procfs.Stat, others: Everyone, adopters: Collection[int]
) -> Iterator[tuple[int, int, Shares]]:
    """(rank, process, what it shares with `root`)."""
    group = _cgroup(root)
    for pid, stat in others.items():
        if stat.flags & _KERNEL_THREAD or stat.state in "ZX":
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


def _ancestors(pid: int, processes: Everyone) -> Iterator[int]:
    while (stat := processes.get(pid)) and stat.parent in processes:
        pid = stat.parent
        yield pid
