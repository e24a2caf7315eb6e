"""The kernel of this machine, loaded with our programs: attach, begin, read, end, detach.

Nothing is attached between runs.  `begin` and `end` flip one word that all programs look at first, so a run starts and
stops at one moment for every hook, however long attaching takes; samples are read while nothing writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

from chainbench_agent.abi.c_struct import CStruct
from chainbench_agent.bpf import kretprobes, libbpf
from chainbench_agent.catalog import Hook, Module, Names
from chainbench_agent.catalog.selection import EVERYTHING, Selection
from chainbench_agent.errors import SetupError
from chainbench_agent.evidence.sample import Sample
from chainbench_agent.kernel import call_tables
from chainbench_agent.kernel.agent_pids import identity_of
from chainbench_agent.kernel.map_reset import empty
from chainbench_agent.kernel.pmu_counters import OpenCounters
from chainbench_agent.kernel.programs import Programs
from chainbench_agent.kernel.reading.current_run import Current, Edge
from chainbench_agent.kernel.reading.disk_records import finished_ios
from chainbench_agent.kernel.reading.member_threads import enrolled
from chainbench_agent.kernel.reading.ring_buffer import Ring
from chainbench_agent.kernel.reading.sample_reader import Reader
from chainbench_agent.kernel.selected_hooks import idle_modules, selected_hooks
from chainbench_agent.kernel.targets.kernel_target import KernelTarget, TargetKind
from chainbench_agent.kernel.targets.process_tree import all_processes
from chainbench_agent.kernel.targets.seeding import seed_maps
from chainbench_agent.loading.bpf_unit import LoadedUnit, load_unit
from chainbench_agent.loading.child_process import run_in_parallel
from chainbench_agent.loading.event_records import Telling
from chainbench_agent.symbols.kernel_symbols import KernelSymbols
from chainbench_agent.symbols.libc_functions import LibcFunctions
from chainbench_agent.symbols.mapping_events import MappingEvents, MappingHistory
from chainbench_agent.symbols.user_symbols import UserSymbols

_CONFIG = CStruct(  # struct cb_config of probes/common.h
    started_ns="Q", cgroup_id="Q", run="I", phase="I", agent="2I", target="I", cgroup_level="I",
    sample_interval="I", idle_modules="I", moves="4x", unused="4x",
)  # fmt: skip
NO_COST = "the kernel counts what BPF programs cost for CAP_SYS_ADMIN only, or after: sysctl kernel.bpf_stats_enabled=1"
_STATS_ENABLED = Path("/proc/sys/kernel/bpf_stats_enabled")


class Phase(IntEnum):
    """`enum cb_phase` of probes/common.h."""

    OFF = 0
    SEEDING = 1
    ON = 2


class Machine:
    """The one seam in front of the kernel.  Every call raises OSError with what the kernel said."""

    def __init__(
        self,
        modules: Iterable[Module],
        hooks: Iterable[Hook],
        cache_dir: Path,
        options: Collection[str] = (),
        *,
        events: Telling | None = None,
    ) -> None:
        """Compile, load and try to attach.  Raises SetupError, saying what is missing, if that cannot be done."""
        self._hooks = {hook.name: hook for hook in hooks}
        symbols, self.unit = run_in_parallel(
            KernelSymbols.load,
            lambda: load_unit(modules, self._hooks.values(), cache_dir, options, events=events),
            undo=LoadedUnit.close,
        )
        self._maps = self.unit.loaded.maps
        self._pmu = OpenCounters(self._maps, self.unit.modules, self.unit.counters)
        self.run = 0
        """The number of the present run, or the last one; the kernel has it in each event."""
        self._target = KernelTarget()
        self._selection = EVERYTHING
        self._not_emptied: Mapping[str, OSError] = {}
        self._began_ns = self._seeds = 0
        self._stats_fd = -1
        self.no_cost = ""  # or why the kernel does not count what the programs of this run cost
        self._user = LibcFunctions(())
        self._mapping_events = MappingEvents()
        self._history = MappingHistory()
        self.unavailable_in_target: Mapping[str, str] = {}
        """Hook → why the programs and libraries of the present run's target have no place for it."""
        self.selected_hooks: frozenset[str] = frozenset()
        """The hooks at which the present run has programs."""
        self.programs = Programs()
        self.ring: Ring | None = None
        try:
            self._make_ready(symbols, emits=events is not None)
        except BaseException:  # whoever goes on without us keeps neither descriptors nor memory of the kernel
            self.close()
            raise

    def _make_ready(self, symbols: KernelSymbols, *, emits: bool) -> None:
        loaded = self.unit.loaded
        identify = loaded.programs.pop("cb_identify", None)
        if identify is not None:
            self.identity = identity_of(identify, self._maps)
        kretprobes.remove_leftovers()
        self.programs = Programs.choose(self.unit.unit.programs, loaded.take_programs(), loaded.failed)
        if identify is None or not self.programs.chosen:
            reasons = {**loaded.failed, **self.programs.absent}
            raise SetupError(f"no BPF program loads here: {next(iter(reasons.values()), 'unknown')}")
        no_calls = "" if self.identity.called_bpf else call_tables.NO_CALLS
        self.unknown_of_waits = call_tables.unknown_of_waits(self.programs, loaded.failed, no_calls)
        self._reader = Reader(self._maps, self.modules, symbols, self._pmu, no_calls)
        self.ring = Ring(self._maps, self.modules) if emits else None

    @property
    def modules(self) -> tuple[Module, ...]:
        return self.unit.modules

    def absent_hook(self, name: str, *, targeted: bool) -> str:
        """Why a hook is not there in a run with or without a target; empty if it is."""
        reasons = (
            self.programs.absent.get(on, "") or self.unit.absent_hooks.get(on, "")
            for on in self._on(name, targeted=targeted)
        )
        return "; ".join(dict.fromkeys(filter(None, reasons)))

    def sources_of(self, name: str, *, targeted: bool) -> list[str]:
        """The attach points that really feed a hook."""
        chosen = self.programs.chosen
        return list(dict.fromkeys(str(chosen[on].source) for on in self._on(name, targeted=targeted) if on in chosen))

    def _on(self, name: str, *, targeted: bool) -> list[str]:
        """The hooks with sources that a hook stands on; it needs some of them only when there is a target."""
        on = [h for h in self._hooks[name].raised_on or (name,) if targeted or not self._hooks[h].targeted]
        replaced = {first for hook in on for first in self._hooks[hook].stands_in_for}
        lacking = any(first not in self.programs.chosen for first in replaced)
        return [hook for hook in on if (hook not in replaced if lacking else not self._hooks[hook].stands_in_for)]

    def lacks(self, fact: str) -> str:
        """Why a fact that a metric needs does not hold here; empty if it does."""
        return self.unit.facts[fact]

    def _locate(self, target: KernelTarget, selection: Selection) -> None:
        """Find the user-space functions that a run of `target` needs; hooks without any are `unavailable_in_target`."""
        self._user.close()
        self._mapping_events.close()
        self.unavailable_in_target = {}
        self._history = MappingHistory()
        hooks = (
            selected_hooks(self.modules, self._hooks, self.unit.unit.follows, selection) & self.programs.chosen.keys()
        )
        if self.programs.in_user_space(hooks):
            everyone = target.kind == TargetKind.MACHINE
            self._user = LibcFunctions(all_processes() if everyone else target.processes())
            self.unavailable_in_target = self.programs.unavailable_in_target(hooks, self._user)
            with suppress(OSError):  # without it there are addresses instead of names
                self._mapping_events.open()
        self.selected_hooks = hooks - self.unavailable_in_target.keys()

    def attach(self, target: KernelTarget, selection: Selection = EVERYTHING) -> None:
        """Make ready for a run: empty the maps, attach what `selection` needs, find who is in the target."""
        try:
            self._locate(target, selection)
            self._not_emptied = empty(self._maps, self.modules)
            call_tables.fill(self._maps, self.modules)
            self.run += 1
            self._target = target
            self._selection = selection
            self._configure(Phase.SEEDING if target.kind == TargetKind.TREE else Phase.OFF)
            self._count_cost()
            self.programs.attach(self.selected_hooks, self._user)
            self._pmu.open()
            self._seeds = seed_maps(target, self._maps)
        except OSError:
            self.detach()
            raise

    def begin(self) -> Sample:
        """Start the run, for all hooks at once; the answer is how things stood at that moment."""
        return self._reader.sample(self._current(), self.programs, self._start)

    def end(self) -> Sample:
        """End the run, for all hooks at once; the answer is how things stood at that moment."""
        self._pmu.end()
        edge = Edge(self._configure(Phase.OFF), finished_ios())
        return self._reader.sample(self._current(), self.programs, lambda: edge)

    def _start(self) -> Edge:
        ios = finished_ios()
        self._began_ns = self._configure(Phase.ON)
        self._pmu.begin()
        return Edge(self._began_ns, ios)

    def detach(self) -> None:
        self.programs.detach()
        self._user.close()
        self._history = self._mapping_events.read() if self._mapping_events else self._history
        self._mapping_events.close()
        self._pmu.close()
        if self._stats_fd >= 0:
            os.close(self._stats_fd)
            self._stats_fd = -1

    def sample(self) -> Sample:
        """Everything that was counted until now.  Events during the reading may or may not be included."""
        return self._reader.sample(self._current(), self.programs)

    def _current(self) -> Current:
        present: AbstractSet[int] = self.target_processes() if self._target.kind != TargetKind.MACHINE else set()
        return Current(self.run, self._target, self._began_ns, present, self._seeds, self._not_emptied)

    def names(self, first: Sample, last: Sample) -> Names:
        """The names of the numbers in a run."""
        since = self._mapping_events.read() if self._mapping_events else self._history
        return self._reader.names(first, last, UserSymbols(self._user.mapped, since))

    def close(self) -> None:
        self.detach()
        if self.ring:
            self.ring.close()
        self.programs.close()
        for fd in self.unit.loaded.take_programs().values():
            os.close(fd)
        while self._maps:
            os.close(self._maps.popitem()[1].fd)

    def _configure(self, phase: Phase) -> int:
        now_ns, target = time.monotonic_ns(), self._target
        level = self.identity.cgroup_level + target.cgroup_level
        head = (now_ns, target.cgroup_id, self.run, phase, *self.identity.processes, target.kind, level)
        config = _CONFIG.pack(*head, self._selection.sample_interval, idle_modules(self.modules, self._selection))
        libbpf.update(self._maps["cb_config"].fd, 0, config)
        return now_ns

    def _count_cost(self) -> None:
        try:
            self._stats_fd = libbpf.enable_stats()
        except PermissionError:
            self.no_cost = "" if _STATS_ENABLED.read_text().strip() == "1" else NO_COST

    def target_processes(self) -> AbstractSet[int]:
        """The processes that are in the target now; of a tree, as the kernel followed them."""
        return enrolled(self._maps) if self._target.kind == TargetKind.TREE else self._target.processes()
