"""Reads which threads and processes a target has beyond those with an open interval."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, replace

from chainbench_agent.bpf import libbpf
from chainbench_agent.evidence.sample import Account, LastWords, Members, OpenInterval, ProcThread, Sleeper
from chainbench_agent.kernel.reading import map_decoding
from chainbench_agent.kernel.reading.current_run import Current
from chainbench_agent.kernel.reading.module_maps import per_cpu
from chainbench_agent.kernel.targets import cgroup_moves, cpu_quotas
from chainbench_agent.kernel.targets.blocked_threads import with_waits
from chainbench_agent.kernel.targets.cgroup_moves import Moves
from chainbench_agent.kernel.targets.kernel_target import TargetKind
from chainbench_agent.kernel.targets.threads import proc_threads, sleepers
from chainbench_agent.loading.loader import MapFd

_ACCOUNT = len(fields(Account))
"""So many numbers of struct cb_ended are an account; behind them are the last words."""


def enrolled(maps: Mapping[str, MapFd]) -> frozenset[int]:
    """The living processes that the kernel side has in its set (probes/target.h)."""
    members = maps["cb_members"]
    return frozenset(int.from_bytes(key, "little") for key in libbpf.keys(members.fd, members.key_size))


def members_of(
    maps: Mapping[str, MapFd], tasks: Iterable[OpenInterval], threads: memoryview, current: Current, moved: Moves
) -> Members:
    """The target beyond the threads that were seen; of the whole machine only how many were."""
    target, present = current.target, current.present
    processes, seen = map_decoding.sums(per_cpu(maps["cb_population"]))
    if not current.targeted:
        return Members(processes=processes, threads=seen)
    now = proc_threads(present)
    gone: tuple[Sleeper, ...] = ()
    outside: Mapping[int, int] = {}
    if target.kind == TargetKind.CGROUP:  # a threaded one has some threads of a process only
        inside = target.threads()
        now = {tid: thread for tid, thread in now.items() if tid in inside}
        outside = map_decoding.strangers(threads, current.run)
        gone = _gone(maps, inside, {*outside, *(task.tid for task in tasks)}, moved, current.began_ns)
        outside = cgroup_moves.member_since(now, outside, current.began_ns, moved)
    ended = maps["cb_ended_threads"]
    count, *sums = map_decoding.sums(per_cpu(maps["cb_ended"]))
    return Members(
        ended_threads=count,
        ended=Account(*sums[:_ACCOUNT]),
        ended_singly=map_decoding.ended_threads(libbpf.items(ended.fd, ended.key_size, ended.value_size)),
        sleepers=(*unseen_threads(now, {task.tid for task in tasks}, current.began_ns, outside), *gone),
        processes=processes,
        threads=seen,
        seeds=current.seeds,
        enrolled=enrolled(maps) if target.kind == TargetKind.CGROUP else frozenset(),
        last_words=LastWords(*sums[_ACCOUNT:]),
        root=target.root,
        cuts=moved.cuts,
        proc_threads=now,
    )


def unseen_threads(
    threads: Mapping[int, ProcThread], seen: Collection[int], began_ns: int, outside: Mapping[int, int]
) -> Iterator[Sleeper]:
    """The `threads` that no hook has seen, with all that /proc knows about them."""
    return cpu_quotas.with_quotas(with_waits(sleepers(threads, seen, began_ns, outside)))


def _gone(
    maps: Mapping[str, MapFd], inside: AbstractSet[int], seen: Collection[int], moved: Moves, began_ns: int
) -> tuple[Sleeper, ...]:
    """Threads that were in the cgroup when the run began, and of which no hook saw a move, until they left it."""
    gone = cgroup_moves.seeded_threads_moved_out(maps, inside, moved)
    threads = {tid: thread for tid, thread in proc_threads({*gone.values()}).items() if tid in gone}
    found = unseen_threads(threads, seen, began_ns, {})
    return tuple(replace(one, until_ns=moved.last_ns[one.thread.pid]) for one in found)
