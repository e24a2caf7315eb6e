"""Finds lock-order violations: cycles in the graph of mutexes that were requested while others were held.  Pure.

A violation is a cycle with edges of two threads or more: these can be interleaved so that each holds the mutex that the
next one waits for, even if that did not happen in the run.  A cycle of one thread's edges is no violation: it cannot
deadlock with itself in this way, and a program may well use another order before it starts its threads.

For each edge of a cycle, the shortest cycle through that edge is shown.  So a cycle of two mutexes is one violation,
and there are at most as many violations as edges.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from struct import unpack
from typing import Any, NamedTuple

from chainbench_agent.catalog import NO_STACK, CallStack, Frames, Names

LISTED = 20
"""How many cycles are shown in full."""

STACKS = "locks_stacks"


class Mutex(NamedTuple):
    """A mutex of the process `tgid` after it executed `exec` programs; both are 0 for the kernel's own.

    `life`: the number of the mutex among those that were at this address one after the other, as far as known.
    """

    tgid: int
    exec: int
    address: int
    life: int


class Edge(NamedTuple):
    """`held` was held while `wanted` was waited for, or would have been.  As struct locks_edge of probes/locks.h."""

    first_ns: int
    held: Mutex
    wanted: Mutex
    held_at: int
    wanted_at: int
    tid: int
    other_tid: int
    stack: int

    @property
    def of_kernel(self) -> bool:
        return self.wanted.tgid == 0

    @property
    def wanted_from(self) -> CallStack:
        """Where the first thread called for what it wanted."""
        return CallStack(self.stack, self.wanted.tgid, self.wanted_at)

    @property
    def held_from(self) -> CallStack | None:
        """Where the thread had called for what it held; None if that is not known."""
        known = self.held_at and not self.of_kernel
        return CallStack(NO_STACK, self.wanted.tgid, self.held_at) if known else None

    @property
    def threads(self) -> set[int]:
        """The first thread that made the edge, and one more if there was."""
        return {self.tid, self.other_tid} - {0}


Cycle = tuple[Edge, ...]
"""Each edge waits for what the next one holds; the one that was made first comes first."""


def edges_of(entries: Mapping[bytes, bytes]) -> list[Edge]:
    """The map `locks_edges`, in the order in which the edges were first made."""
    found = []
    for key, value in entries.items():
        held, wanted, held_life, wanted_life, tgid, exec_ = unpack("=QQIIII", key)
        first_ns, held_at, wanted_at, tid, other_tid, stack = unpack("=QQQIIi4x", value)
        mutexes = Mutex(tgid, exec_, held, held_life), Mutex(tgid, exec_, wanted, wanted_life)
        found.append(Edge(first_ns, *mutexes, held_at, wanted_at, tid, other_tid, stack))
    return sorted(found)


def violations(edges: Iterable[Edge]) -> list[Cycle]:
    """The cycles with edges of more than one thread, each cycle once."""
    ways: dict[Mutex, list[Edge]] = defaultdict(list)
    for edge in _in_cycles(edges):
        ways[edge.held].append(edge)
    found: dict[frozenset[Edge], Cycle] = {}
    for edge in (edge for out in ways.values() for edge in out):
        cycle = (edge, *_way(ways, edge.wanted, edge.held))
        if len(cycle) > 1 and len(set().union(*(one.threads for one in cycle))) > 1:
            found.setdefault(frozenset(cycle), _from_the_first(cycle))
    return sorted(found.values())


def split(cycles: Iterable[Cycle]) -> tuple[list[Cycle], list[Cycle]]:
    """The cycles of user space, and those of the kernel."""
    found: tuple[list[Cycle], list[Cycle]] = [], []
    for cycle in cycles:
        found[cycle[0].of_kernel].append(cycle)
    return found


def listed(edges: Iterable[Edge]) -> list[Edge]:
    """The edges of the cycles that are shown in full."""
    return [edge for cycles in split(violations(edges)) for cycle in cycles[:LISTED] for edge in cycle]


def stacks_shown(entries: Mapping[bytes, bytes]) -> list[CallStack]:
    """The stacks of these edges.  `entries`: as `edges_of` takes them."""
    edges = listed(edges_of(entries))
    return [stack for edge in edges for stack in (edge.wanted_from, edge.held_from) if stack]


def _in_cycles(edges: Iterable[Edge]) -> list[Edge]:
    """Drops edges that cannot be in a cycle: those to a mutex that no edge leaves, or from one that no edge reaches."""
    left = list(edges)
    while True:
        held, wanted = {edge.held for edge in left}, {edge.wanted for edge in left}
        inner = [edge for edge in left if edge.held in wanted and edge.wanted in held]
        if len(inner) == len(left):
            return left
        left = inner


def _way(ways: Mapping[Mutex, Sequence[Edge]], start: Mutex, end: Mutex) -> Cycle:
    """The shortest way; empty if there is none."""
    came_by: dict[Mutex, Edge] = {}
    todo = deque([start])
    while todo and end not in came_by:
        for edge in ways.get(todo.popleft(), ()):
            if edge.wanted not in came_by:
                came_by[edge.wanted] = edge
                todo.append(edge.wanted)
    return tuple(reversed(list(_back(came_by, start, end)))) if end in came_by else ()


def _back(came_by: Mapping[Mutex, Edge], start: Mutex, end: Mutex) -> Iterator[Edge]:
    while end != start:
        yield came_by[end]
        end = came_by[end].held


def _from_the_first(cycle: Cycle) -> Cycle:
    first = cycle.index(min(cycle))
    return cycle[first:] + cycle[:first]


def shown(cycles: Sequence[Cycle], names: Names) -> list[dict[str, Any]]:
    """`[{pid, edges: [{held, wanted, tid, other_tid, held_at, stack}]}]`, LISTED at most.

    held, wanted: addresses; held_at: where the thread `tid` had called for the former; stack: where it called for the
    latter, innermost first, as `function+0x1f [object]`, `object+0x1234` or an address.  `pid` is not there for the
    kernel's own mutexes, `other_tid` only where another thread made the edge as well, `held_at` only where it is known.
    """
    return [
        ({} if cycle[0].of_kernel else {"pid": cycle[0].wanted.tgid}) | {"edges": [_edge(e, names) for e in cycle]}
        for cycle in cycles[:LISTED]
    ]


def _edge(edge: Edge, names: Names) -> dict[str, Any]:
    held_at: Frames = names.frames(STACKS, edge.held_from) if edge.held_from else ()
    return {
        "held": f"{edge.held.address:#x}",
        "wanted": f"{edge.wanted.address:#x}",
        "tid": edge.tid,
        **({"other_tid": edge.other_tid} if edge.other_tid else {}),
        **({"held_at": held_at[0]} if held_at else {}),
        "stack": list(names.frames(STACKS, edge.wanted_from)),
    }
