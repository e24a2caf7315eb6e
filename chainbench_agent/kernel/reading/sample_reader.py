"""What a run has counted: all maps, read at one time.  The agent only reads here, and never clears."""

from __future__ import annotations

import struct
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import NamedTuple

from chainbench_agent.abi.c_struct import CStruct
from chainbench_agent.bpf import libbpf
from chainbench_agent.catalog import Module, Names
from chainbench_agent.evidence.sample import (
    Account,
    IdleSpan,
    LastWords,
    Members,
    OpenInterval,
    ProcThread,
    Sample,
    Sleeper,
    Value,
)
from chainbench_agent.kernel.reading import index_names, map_decoding
from chainbench_agent.kernel.reading.disk_records import Disks, finished_ios
from chainbench_agent.kernel.reading.proc_counters import kernel_counters, proc_counters
from chainbench_agent.kernel.targets import cgroup_moves, cpu_quotas
from chainbench_agent.kernel.targets.blocked_threads import with_functions, with_waits
from chainbench_agent.kernel.targets.cgroup_moves import Moves
from chainbench_agent.kernel.targets.kernel_target import KernelTarget, TargetKind
from chainbench_agent.kernel.targets.threads import proc_threads, sleepers
from chainbench_agent.loading.loader import MapFd
from chainbench_agent.loading.process_records import processes
from chainbench_agent.probes.lock_order import edges_of, listed
from chainbench_agent.symbols.kernel_symbols import KernelSymbols, stack_addresses
from chainbench_agent.symbols.user_symbols import UserSymbols

LOSS_CAUSES = (
    "task_collisions",
    "unseen_switches",
    "keys_full",
    "members_full",
    "returns_missed",
    "locks_full",
    "unseen_ends",
    "moves_unseen",
)
_LOSS = CStruct(**dict.fromkeys(LOSS_CAUSES, "Q"))  # struct cb_loss of probes/common.h

_ACCOUNT = len(fields(Account))
"""So many numbers of struct cb_ended are an account; behind them are the last words."""


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


class Reader:
    """Every call raises OSError with what the kernel said, unless that concerns one module alone: see Sample.unread."""

    def __init__(
        self, maps: Mapping[str, MapFd], modules: tuple[Module, ...], symbols: KernelSymbols, no_calls: str = ""
    ) -> None:
        """`symbols` are kept only if a module keeps stacks.  `no_calls`: see Names."""
        self._maps = maps
        self._modules = modules
        self._no_calls = no_calls
        self._symbols = symbols if {"offcpu_stacks", "locks_stacks"} & maps.keys() else None

    def sample(self, current: Current) -> Sample:
        with self._memory("cb_tasks") as threads, self._memory("cb_processes") as records:
            return replace(self._sample(current, threads, records), read_by_ns=time.monotonic_ns())

    def _sample(self, current: Current, threads: memoryview, records: memoryview) -> Sample:
        run, target = current.run, current.target
        at_ns = time.monotonic_ns()
        tasks, moved = self._tasks(threads, current)
        modules: dict[str, dict[str, Value]] = {}
        unread: list[tuple[str, OSError]] = []
        by_disk = Disks(self._maps)
        for module in self._modules:
            try:
                modules[module.name] = self._values(module, run) | by_disk.read(module)
            except OSError as error:  # the others are none the worse
                unread.append((module.name, error))
        loss = dict(zip(LOSS_CAUSES, map_decoding.sums(self._per_cpu("cb_loss")), strict=True))
        if moved.before_ns:
            loss["moves_unseen"] += cgroup_moves.count_unseen_threads(moved, *map_decoding.off_cpu_since(threads, run))
        sample = Sample(
            at_ns=at_ns,
            modules=modules,
            loss=loss,
            tasks=tasks,
            members=self._members(tasks, threads, current, moved),
            processes=tuple(processes(records, self._modules, run)),
            throttled=cpu_quotas.throttled_groups(),
            quota_groups=cpu_quotas.groups_above(current.present) if target.kind != TargetKind.MACHINE else None,
            kernel=kernel_counters(),
            procfs=proc_counters(m.field for module in self._modules for m in module.procfs),
            disk_ios=finished_ios(),
        )
        try:
            sample = replace(sample, idle=self._idle(run))
        except OSError as error:
            unread.append(("cpu", error))
        for name, why in unread:
            sample = sample.without(name, why)
        for name, why in current.not_emptied.items():
            sample = sample.without(name, why, "cleared")
        return sample

    def _tasks(self, threads: memoryview, current: Current) -> tuple[tuple[OpenInterval, ...], Moves]:
        """What the target's threads are at, and what is known of moves between cgroups."""
        tasks = tuple(map_decoding.open_tasks(threads, self._per_cpu("cb_on_cpu"), current.run))
        if current.target.kind != TargetKind.CGROUP:
            return tuple(with_functions(tasks)), Moves()
        moved = cgroup_moves.read_moves(self._maps)
        remaining, cuts = cgroup_moves.cut_left_threads(tasks, current.target.threads(), moved)
        return tuple(with_functions(remaining)), replace(moved, cuts=(*moved.cuts, *with_functions(cuts)))

    def _values(self, module: Module, run: int) -> dict[str, Value]:
        counted = map_decoding.decode(module, self._per_cpu(f"cb_{module.name}"), libbpf.possible_cpus(), run)
        return counted | self._hashes(module)

    def names(self, first: Sample, last: Sample, user: UserSymbols) -> Names:
        """What the numbers in a run are called."""
        look, stacks = self._symbols, self._maps.get("offcpu_stacks")
        known = look.stacks(stacks) if look and stacks else {}
        span = *cpu_quotas.throttled_between(first, last), last.at_ns - first.at_ns
        ios = {disk: count - first.disk_ios.get(disk, 0) for disk, count in last.disk_ios.items()}
        return Names(index_names.tables(), known, *span, self._lock_stacks(last, user), ios, self._no_calls)

    def _lock_stacks(
        self, last: Sample, user: UserSymbols
    ) -> dict[tuple[int, int, int, int], tuple[str, tuple[str, ...]]]:
        """See Names.lock_stacks: of the edges that will be told of."""
        entries = last.modules.get("locks", {}).get("edges", {})
        edges = listed(edges_of(entries)) if isinstance(entries, Mapping) and entries else []
        found = {}
        for edge in edges:
            pid, addresses = edge.wanted.tgid, stack_addresses(self._maps["locks_stacks"], edge.stack)
            if not edge.of_kernel:
                held_at = user.name_of(pid, edge.held_at) if edge.held_at else ""
                found[edge.place] = held_at, user.stack(pid, edge.wanted_at, addresses)
            elif self._symbols:
                found[edge.place] = "", tuple(map(self._symbols.name_of, addresses))
        return found

    def enrolled(self) -> frozenset[int]:
        """The living processes that the kernel side has in its set (probes/target.h)."""
        members = self._maps["cb_members"]
        return frozenset(int.from_bytes(key, "little") for key in libbpf.keys(members.fd, members.key_size))

    def _members(self, tasks: Iterable[OpenInterval], threads: memoryview, current: Current, moved: Moves) -> Members:
        """The target beyond the threads that were seen; nothing for the whole machine."""
        target, present = current.target, current.present
        processes, seen = map_decoding.sums(self._per_cpu("cb_population"))
        if target.kind == TargetKind.MACHINE:
            return Members(processes=processes, threads=seen)
        now = proc_threads(present)
        gone: tuple[Sleeper, ...] = ()
        outside: Mapping[int, int] = {}
        if target.kind == TargetKind.CGROUP:  # a threaded one has some threads of a process only
            inside = target.threads()
            now = {tid: thread for tid, thread in now.items() if tid in inside}
            outside = map_decoding.strangers(threads, current.run)
            gone = self._gone(inside, {*outside, *(task.tid for task in tasks)}, moved, current)
            outside = cgroup_moves.member_since(now, outside, current.began_ns, moved)
        ended = self._maps["cb_ended_threads"]
        count, *sums = map_decoding.sums(self._per_cpu("cb_ended"))
        return Members(
            count,
            Account(*sums[:_ACCOUNT]),
            map_decoding.ended_threads(libbpf.items(ended.fd, ended.key_size, ended.value_size)),
            (*unseen_threads(now, {task.tid for task in tasks}, current.began_ns, outside), *gone),
            processes,
            seen,
            current.seeds,
            self.enrolled() if target.kind == TargetKind.CGROUP else frozenset(),
            LastWords(*sums[_ACCOUNT:]),
            target.root,
            moved.cuts,
            now,
        )

    def _gone(
        self, inside: Collection[int], seen: Collection[int], moved: Moves, current: Current
    ) -> tuple[Sleeper, ...]:
        """Threads that were in the cgroup when the run began, and of which no hook saw a move, until they left it."""
        gone = cgroup_moves.seeded_threads_moved_out(self._maps, inside, moved)
        threads = {tid: thread for tid, thread in proc_threads({*gone.values()}).items() if tid in gone}
        found = unseen_threads(threads, seen, current.began_ns, {})
        return tuple(replace(one, until_ns=moved.last_ns[one.thread.pid]) for one in found)

    @contextmanager
    def _memory(self, name: str) -> Iterator[memoryview]:
        """An array, read where it lies.  Only meanwhile is it mapped, and then part of the agent's own memory."""
        table = self._maps[name]
        with libbpf.mmap_array(table.fd, table.entries * table.value_size) as cells, memoryview(cells) as memory:
            yield memory

    def _hashes(self, module: Module) -> dict[str, dict[bytes, bytes]]:
        per_cpu = {keyed.name for keyed in module.keyed if keyed.per_cpu}
        tables = {keyed.name: self._maps[f"{module.name}_{keyed.name}"] for keyed in module.keyed}
        entries = {
            name: libbpf.items(t.fd, t.key_size, t.value_size * (libbpf.possible_cpus() if name in per_cpu else 1))
            for name, t in tables.items()
        }
        return {name: _summed(found) if name in per_cpu else found for name, found in entries.items()}

    def _idle(self, run: int) -> tuple[IdleSpan, ...]:
        if "cpu_idle_span" not in self._maps:
            return ()
        return tuple(map_decoding.idle_cpus(self._per_cpu("cpu_idle_span"), run))

    def _per_cpu(self, name: str) -> bytes:
        table = self._maps[name]
        return libbpf.lookup_all_cpus(table.fd, table.value_size)


def unseen_threads(
    threads: Mapping[int, ProcThread], seen: Collection[int], began_ns: int, outside: Mapping[int, int]
) -> Iterator[Sleeper]:
    """Those of `threads` that no hook has seen, with all that /proc tells of them."""
    return cpu_quotas.with_quotas(with_waits(sleepers(threads, seen, began_ns, outside)))


def _summed(entries: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """A hash of u64 that has one for each CPU → the same with their sum."""
    return {
        key: sum(struct.unpack(f"={len(value) // 8}Q", value)).to_bytes(8, "little") for key, value in entries.items()
    }
