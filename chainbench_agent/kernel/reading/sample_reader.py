"""Reads what a run has counted: all maps at one time, as one Sample.  The agent only reads here, and never clears."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from chainbench_agent.abi.c_struct import CStruct
from chainbench_agent.bpf import libbpf
from chainbench_agent.catalog import Module, Names
from chainbench_agent.evidence.sample import OpenInterval, Sample, Sleeper, Value, failure
from chainbench_agent.kernel.pmu_counters import OpenCounters
from chainbench_agent.kernel.programs import Programs
from chainbench_agent.kernel.reading import index_names, map_decoding, module_maps
from chainbench_agent.kernel.reading.current_run import Current, Edge
from chainbench_agent.kernel.reading.disk_records import Disks, finished_ios
from chainbench_agent.kernel.reading.member_threads import members_of
from chainbench_agent.kernel.reading.proc_counters import kernel_counters, proc_counters
from chainbench_agent.kernel.reading.stack_names import named_stacks
from chainbench_agent.kernel.targets import cgroup_moves, cpu_quotas
from chainbench_agent.kernel.targets.blocked_threads import with_functions
from chainbench_agent.kernel.targets.cgroup_moves import Moves
from chainbench_agent.kernel.targets.kernel_target import TargetKind
from chainbench_agent.loading.loader import MapFd
from chainbench_agent.loading.process_records import processes
from chainbench_agent.symbols.kernel_symbols import KernelSymbols
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


class Reader:
    """Every call raises OSError with what the kernel said, unless that concerns only one module: see Sample.unread."""

    def __init__(
        self,
        maps: Mapping[str, MapFd],
        modules: tuple[Module, ...],
        symbols: KernelSymbols,
        pmu: OpenCounters,
        no_calls: str = "",
    ) -> None:
        """`symbols` stay in memory only if a module has stacks.  `no_calls`: see Names."""
        self._maps = maps
        self._modules = modules
        self._pmu = pmu
        self._no_calls = no_calls
        self._symbols = symbols if any(module.stacks for module in modules) else None

    def sample(self, current: Current, programs: Programs, edge: Callable[[], Edge] | None = None) -> Sample:
        """`edge`: answers at which edge of the run these are the values, asked when all of them have been read.

        Without it they are the values of now, and grow while they are read.
        """
        with self._memory("cb_tasks") as threads, self._memory("cb_processes") as records:
            at_ns = time.monotonic_ns()
            tasks, moved = self._tasks(threads, current)
            modules, unread = self._read_modules(current.run)
            members = members_of(self._maps, tasks, threads, current, moved)
            unread |= self._add_pmu_counters(modules, tasks, members.sleepers, current)
            unread |= {name: failure("cleared", error) for name, error in current.not_emptied.items()}
            read = partial(
                Sample,
                run=current.run,
                modules={name: values for name, values in modules.items() if name not in unread},
                unread=unread,
                loss=self._loss(threads, current.run, moved),
                programs=programs.runs(),
                tasks=tasks,
                members=members,
                processes=tuple(processes(records, self._modules, current.run)),
                throttled=cpu_quotas.throttled_groups(),
                quota_groups=cpu_quotas.groups_above(current.present) if current.targeted else None,
                kernel=kernel_counters(),
                procfs=proc_counters(m.field for module in self._modules for m in module.procfs),
            )
        if edge is None:
            return read(at_ns=at_ns, disk_ios=finished_ios(), read_by_ns=time.monotonic_ns())
        moment = edge()
        return read(at_ns=moment.at_ns, disk_ios=moment.disk_ios)

    def names(self, first: Sample, last: Sample, user: UserSymbols) -> Names:
        """The names of the numbers in a run."""
        return Names(
            tables=index_names.tables(),
            stacks=named_stacks(self._maps, self._modules, last, self._symbols, user) if self._symbols else {},
            throttled_before=first.throttled,
            throttled_after=last.throttled,
            run_ns=last.at_ns - first.at_ns,
            disk_ios={disk: count - first.disk_ios.get(disk, 0) for disk, count in last.disk_ios.items()},
            quotas_before=first.quota_groups,
            quotas_after=last.quota_groups,
            no_calls=self._no_calls,
        )

    def _tasks(self, threads: memoryview, current: Current) -> tuple[tuple[OpenInterval, ...], Moves]:
        """The present states of the target's threads, and what is known of moves between cgroups."""
        tasks = tuple(map_decoding.open_tasks(threads, self._per_cpu("cb_on_cpu"), current.run))
        if current.target.kind != TargetKind.CGROUP:
            return tuple(with_functions(tasks)), Moves()
        moved = cgroup_moves.read_moves(self._maps)
        remaining, cuts = cgroup_moves.cut_left_threads(tasks, current.target.threads(), moved)
        return tuple(with_functions(remaining)), replace(moved, cuts=(*moved.cuts, *with_functions(cuts)))

    def _read_modules(self, run: int) -> tuple[dict[str, dict[str, Value]], dict[str, str]]:
        """Module → metric → value; and module → why its maps could not be read."""
        found: dict[str, dict[str, Value]] = {}
        unread = {}
        by_disk = Disks(self._maps)
        for module in self._modules:
            try:
                found[module.name] = module_maps.values(self._maps, module, run) | by_disk.read(module)
            except OSError as error:  # the others are complete
                unread[module.name] = failure("read", error)
        return found, unread

    def _add_pmu_counters(
        self,
        modules: dict[str, dict[str, Value]],
        tasks: tuple[OpenInterval, ...],
        sleepers: tuple[Sleeper, ...],
        current: Current,
    ) -> dict[str, str]:
        """Complete the module that declares them, or answer why it cannot be."""
        name = self._pmu.module
        if name not in modules:
            return {}
        try:
            modules[name] = self._pmu.added(modules[name], tasks, sleepers, current)
        except OSError as error:
            return {name: failure("read", error)}
        return {}

    def _loss(self, threads: memoryview, run: int, moved: Moves) -> dict[str, int]:
        loss = dict(zip(LOSS_CAUSES, map_decoding.sums(self._per_cpu("cb_loss")), strict=True))
        if moved.before_ns:
            loss["moves_unseen"] += cgroup_moves.count_unseen_threads(moved, *map_decoding.off_cpu_since(threads, run))
        return loss

    @contextmanager
    def _memory(self, name: str) -> Iterator[memoryview]:
        """An array, read where it lies.  Only meanwhile is it mapped, and then part of the agent's own memory."""
        table = self._maps[name]
        with libbpf.mmap_array(table.fd, table.entries * table.value_size) as cells, memoryview(cells) as memory:
            yield memory

    def _per_cpu(self, name: str) -> bytes:
        return module_maps.per_cpu(self._maps[name])
