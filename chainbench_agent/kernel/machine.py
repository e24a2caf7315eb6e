"""The kernel of this machine, loaded with our programs: attach, begin, read, end, detach.

Nothing is attached between runs.  `begin` and `end` flip one word that all programs look at first, so a run starts and
stops at one moment for every hook, however long attaching takes; samples are read while nothing writes.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Collection, Iterable, Mapping
from enum import IntEnum
from pathlib import Path

from chainbench_agent.errors import SetupError
from chainbench_agent.evidence.sample import Account, IdleSpan, Members, OpenInterval, Sample
from chainbench_agent.kernel import libbpf, names, values
from chainbench_agent.kernel.accounts import kernel_counters, proc_counters
from chainbench_agent.kernel.counters import Counters
from chainbench_agent.kernel.facts import FACTS
from chainbench_agent.kernel.fuse import followed_calls
from chainbench_agent.kernel.programs import Programs
from chainbench_agent.kernel.symbols import Symbols
from chainbench_agent.kernel.target import KernelTarget, Kind, cgroup_threads, leave, schedstat, seed, sleepers
from chainbench_agent.kernel.unit import load_unit
from chainbench_agent.kernel.wanted import idle_modules, wanted_hooks
from chainbench_agent.plan import EVERYTHING, Plan
from chainbench_agent.spec import Hook, Module, Names

_CONFIG = struct.Struct("=QQIIIIIIII")  # struct cb_config of probes/common.h
_LOSS = struct.Struct("=QQQQQ")  # struct cb_loss
_IDENTITY = struct.Struct("=IIQ")  # struct cb_identity of probes/identify.h
_CALL_KINDS = struct.Struct("=II")  # struct cb_call_kinds of probes/calls.h
LOSS_CAUSES = ("task_collisions", "unseen_switches", "keys_full", "members_full", "returns_missed")
"""The members of struct cb_loss, in order."""


class Phase(IntEnum):
    """`enum cb_phase` of probes/common.h."""

    OFF = 0
    SEEDING = 1
    ON = 2


class Machine:
    """The one seam in front of the kernel.  Every call raises OSError with what the kernel said."""

    def __init__(
        self, modules: Iterable[Module], hooks: Iterable[Hook], cache_dir: Path, options: Collection[str] = ()
    ) -> None:
        """Compile, load and try to attach.  Raises SetupError, saying what is missing, if that cannot be done."""
        self._hooks = {hook.name: hook for hook in hooks}
        self.unit = load_unit(modules, self._hooks.values(), cache_dir, options)
        loaded = self.unit.loaded
        self._maps = loaded.maps
        self._facts: dict[str, str] = {}
        self._counters = Counters(self._maps, self.unit.counters if "memory_span" in self._maps else 0)
        self._run = 0
        self._target = KernelTarget()
        self._plan = EVERYTHING
        self._seeds = 0
        self._began_ns = 0
        self._stats_fd = -1
        identify = loaded.programs.pop("cb_identify", None)
        self.programs = Programs.choose(self.unit.unit.programs, loaded.programs, loaded.failed)
        if identify is None or not self.programs.chosen:
            reasons = {**loaded.failed, **self.programs.absent}
            raise SetupError(f"no BPF program loads here: {next(iter(reasons.values()), 'unknown')}")
        self._agent, self.syscall_offset_proven = self._identify(identify)
        if "cb_call_kinds" in self._maps:
            for number, *kinds in followed_calls(os.uname().machine):
                libbpf.update(self._maps["cb_call_kinds"].fd, number, _CALL_KINDS.pack(*kinds))
        self._tasks, self._processes = (self._shared(name) for name in ("cb_tasks", "cb_processes"))
        self._symbols = Symbols.load() if "offcpu_stacks" in self._maps else None

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
        """What a hook is really fed from."""
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
        if fact not in self._facts:
            self._facts[fact] = FACTS[fact]()
        return self._facts[fact]

    def wanted(self, target: KernelTarget, plan: Plan = EVERYTHING) -> frozenset[str]:
        """The hooks that a run of `target` has programs of."""
        targeted = target.kind != Kind.MACHINE
        hooks = wanted_hooks(self.modules, self._hooks, self.unit.unit.follows, plan, targeted=targeted)
        return hooks & self.programs.chosen.keys()

    def attach(self, target: KernelTarget, plan: Plan = EVERYTHING) -> None:
        """Make ready for a run: empty the hashes, attach what `plan` needs, find out who is in the target."""
        for name in self._keyed():
            table = self._maps[name]
            for key in libbpf.keys(table.fd, table.key_size):
                libbpf.delete(table.fd, key)
        libbpf.update(self._maps["cb_kept"].fd, 0, bytes(8))
        self._run += 1
        self._target = target
        self._plan = plan
        self._configure(Phase.SEEDING if target.kind == Kind.TREE else Phase.OFF)
        self._stats_fd = libbpf.enable_stats()
        try:
            self.programs.attach(self.wanted(target, plan))
            self._counters.open()
            self._seeds = self._seed()
        except OSError:
            self.detach()
            raise

    def begin(self) -> int:
        """The run starts now, for all hooks at once; the answer is that moment (CLOCK_MONOTONIC, ns)."""
        self._began_ns = self._configure(Phase.ON)
        self._counters.begin()
        return self._began_ns

    def end(self) -> int:
        """The run is over, for all hooks at once; the answer is that moment (CLOCK_MONOTONIC, ns)."""
        self._counters.end()
        return self._configure(Phase.OFF)

    def detach(self) -> None:
        self.programs.detach()
        self._counters.close()
        if self._stats_fd >= 0:
            os.close(self._stats_fd)
            self._stats_fd = -1

    def sample(self) -> Sample:
        """Read everything.  While a run is on, what happens during the reading may be in or out."""
        at_ns = time.monotonic_ns()
        tasks = tuple(values.open_tasks(memoryview(self._tasks), self._per_cpu("cb_on_cpu"), self._run))
        if self._target.kind == Kind.CGROUP:
            tasks = tuple(leave(tasks, cgroup_threads(self._target.directory)))
        modules = {}
        for module in self.modules:
            raw = self._per_cpu(f"cb_{module.name}")
            modules[module.name] = values.decode(module, raw, libbpf.possible_cpus(), self._run) | self._hashes(module)
        loss = zip(*_LOSS.iter_unpack(self._per_cpu("cb_loss")), strict=True)
        sample = Sample(
            at_ns=at_ns,
            modules=modules,
            loss=dict(zip(LOSS_CAUSES, map(sum, loss), strict=True)),
            programs=self.programs.runs(),
            tasks=tasks,
            members=self._members(tasks),
            processes=tuple(values.processes(memoryview(self._processes), self.modules, self._run)),
            idle=self._idle(),
            throttled=names.throttled_groups(),
            kernel=kernel_counters(),
            procfs=proc_counters(m.field for module in self.modules for m in module.procfs),
        )
        targeted = self._target.kind != Kind.MACHINE
        return self._counters.complete(sample, self._run, self._began_ns, targeted=targeted)

    def names(self, first: Sample, last: Sample) -> Names:
        """What the numbers in a run are called."""
        sampled = last.modules.get("offcpu", {}).get("sampled_ns", {})
        keys = sampled if isinstance(sampled, Mapping) else ()
        ids = {int.from_bytes(key[4:], "little", signed=True) for key in keys} | {t.stack for t in last.tasks}
        look, stacks = self._symbols, self._maps.get("offcpu_stacks")
        known = {i: look.stack(stacks, i) for i in ids if i >= 0} if look and stacks else {}
        return Names(names.tables(), known, first.throttled, last.throttled, last.at_ns - first.at_ns)

    def close(self) -> None:
        self.detach()
        self._tasks.close()
        self._processes.close()
        self.programs.close()
        while self._maps:
            os.close(self._maps.popitem()[1].fd)

    def _shared(self, name: str) -> mmap.mmap:
        """An array that is read where it lies."""
        table = self._maps[name]
        size = -(-table.entries * table.value_size // mmap.PAGESIZE) * mmap.PAGESIZE
        return mmap.mmap(table.fd, size, mmap.MAP_SHARED, mmap.PROT_READ)

    def _configure(self, phase: Phase) -> int:
        now_ns, target = time.monotonic_ns(), self._target
        head = (now_ns, target.cgroup_id, self._run, phase, *self._agent, target.kind, target.cgroup_level)
        config = _CONFIG.pack(*head, self._plan.sample_interval, idle_modules(self.modules, self._plan))
        libbpf.update(self._maps["cb_config"].fd, 0, config)
        return now_ns

    def _seed(self) -> int:
        members = self._maps["cb_members"].fd
        if self._target.kind != Kind.TREE:
            return 0
        return seed(
            self._target,
            lambda pid: libbpf.update(members, pid, (1).to_bytes(8, "little")),
            lambda pid: libbpf.delete(members, pid.to_bytes(4, "little")),
        )

    def _members(self, tasks: Iterable[OpenInterval]) -> Members:
        """The target beyond the threads that were seen; nothing for the whole machine."""
        processes, threads = values.sums(self._per_cpu("cb_population"))
        if self._target.kind == Kind.MACHINE:
            return Members(processes=processes, threads=threads)
        present = self.target_processes()
        outside = values.strangers(memoryview(self._tasks), self._run) if self._target.kind == Kind.CGROUP else {}
        asleep = sleepers(present, {task.tid for task in tasks}, self._began_ns, outside)
        ended = self._maps["cb_ended_threads"]
        count, *sums = values.sums(self._per_cpu("cb_ended"))
        return Members(
            count,
            Account(*sums),
            values.ended_threads(libbpf.items(ended.fd, ended.key_size, ended.value_size)),
            asleep,
            processes,
            threads,
            self._seeds or len({sleeper.thread.pid for sleeper in asleep} - self._enrolled()),
            schedstat(present),
        )

    def target_processes(self) -> set[int]:
        """The processes that are in the target now; of a tree, as the kernel followed them."""
        return self._enrolled() if self._target.kind == Kind.TREE else self._target.processes()

    def _enrolled(self) -> set[int]:
        """The living processes that the kernel side has in its set (probes/target.h)."""
        members = self._maps["cb_members"]
        return {int.from_bytes(key, "little") for key in libbpf.keys(members.fd, members.key_size)}

    def _identify(self, program: int) -> tuple[tuple[int, int], bool]:
        """Our own process, and its parent if that is gunicorn's master, as the kernel numbers them."""
        libbpf.run_program(program)
        os.close(program)
        tgid, parent, syscall = _IDENTITY.unpack(libbpf.lookup(self._maps["cb_identity"].fd, 0, _IDENTITY.size))
        master = Path("/proc/self/cmdline").read_bytes() == Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
        return (tgid, parent if master else tgid), names.syscalls(os.uname().machine).get(syscall) == "bpf"

    def _keyed(self) -> list[str]:
        declared = [f"{m.name}_{name}" for m in self.modules for name in m.own_maps]
        own = [name for name in declared if self._maps[name].entries > 1]
        shared = ("cb_members", "cb_ended_threads", "cb_requests", "cb_bios", "cb_entered")
        return [*own, *(name for name in shared if name in self._maps)]

    def _hashes(self, module: Module) -> dict[str, dict[bytes, bytes]]:
        tables = {keyed.name: self._maps[f"{module.name}_{keyed.name}"] for keyed in module.keyed}
        return {name: libbpf.items(t.fd, t.key_size, t.value_size) for name, t in tables.items()}

    def _idle(self) -> tuple[IdleSpan, ...]:
        if "cpu_idle_span" not in self._maps:
            return ()
        return tuple(values.idle_cpus(self._per_cpu("cpu_idle_span"), self._run))

    def _per_cpu(self, name: str) -> bytes:
        table = self._maps[name]
        return libbpf.lookup_all_cpus(table.fd, table.value_size)
