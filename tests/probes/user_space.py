"""A kernel that a test plays itself: it holds the clock, fires the hooks, and reads the maps as the agent does."""

import ctypes
from array import array
from dataclasses import dataclass

from chainbench_agent.catalog import DISKS
from chainbench_agent.evidence.build import difference
from chainbench_agent.evidence.open_intervals import close_processes, open_time
from chainbench_agent.evidence.open_intervals import closed as close
from chainbench_agent.evidence.sample import Account, LastWords, Members, Sample
from chainbench_agent.kernel import call_tables, machine
from chainbench_agent.kernel.machine import Phase
from chainbench_agent.kernel.reading import disk_records, map_decoding, module_maps, sample_reader
from chainbench_agent.kernel.targets.cgroup_moves import decode
from chainbench_agent.kernel.targets.kernel_target import KernelTarget, TargetKind
from chainbench_agent.loading.process_records import processes
from chainbench_agent.loading.unit_sizes import followed_calls
from chainbench_agent.loading.unit_text import fuse
from chainbench_agent.probes import CATALOG, HOOKS
from chainbench_agent.probes.blocked_time import blocked_ns

CPUS = 4  # SHIM_CPUS
AGENT = 900
"""Thread group of the agent; its parent's is the next."""

INTERRUPTIBLE, UNINTERRUPTIBLE, DEAD = 0x1, 0x2, 0x80
KTHREAD = 0x00200000  # PF_KTHREAD
READ, EXECVE, FUTEX, EXECVEAT = 0, 59, 202, 322
NO_SYSCALL = (1 << 64) - 1  # orig_ax outside of any


def fused(modules=CATALOG, has_field=lambda _field: True, **host):
    return fuse(modules, HOOKS, lambda hook: hook.sources, has_field, host)


@dataclass(frozen=True)
class Task:
    address: int
    pid: int


class UserSpace:
    """Entries are fired as a raw tracepoint fires them: an array of 64-bit arguments."""

    def __init__(self, library):
        self.library = library
        self.run = 0
        self.first = None
        self.target = KernelTarget()
        self.attached = False
        self.sample_interval = 1
        self.idle_modules = 0
        makers = ("task", "request", "bio", "cut_off", "cgroup", "sock", "skb", "regs", "open", "mapping", "folio")
        makers = (*makers, "disk", "set_disk", "queue")
        for maker in makers:
            getattr(library, f"shim_{maker}").restype = ctypes.c_void_p
        size = call_tables.CALL_KINDS.size
        cells = (ctypes.c_char * self.get("cb_call_kinds_size")).in_dll(library, "cb_call_kinds_cells")
        for number, *kinds in followed_calls("x86_64"):
            cells[number * size : (number + 1) * size] = call_tables.CALL_KINDS.pack(*kinds)
        size = self.get("offcpu_file_calls_size") // 1024
        cells = (ctypes.c_char * self.get("offcpu_file_calls_size")).in_dll(library, "offcpu_file_calls_cells")
        for number, bits in call_tables.file_calls("x86_64").items():
            cells[number * size : (number + 1) * size] = bits.to_bytes(size, "little")
        self.idle = self.task(0)
        self.set("shim_current", ctypes.c_void_p, self.idle.address)

    def set(self, name, kind, value):
        kind.in_dll(self.library, name).value = value

    def get(self, name, kind=ctypes.c_uint64):
        return kind.in_dll(self.library, name).value

    def at(self, now_ns):
        self.library.shim_tick(ctypes.c_uint64(now_ns))
        return self

    @property
    def now_ns(self):
        return self.get("shim_now_ns")

    # ---- what there is

    def task(self, pid, tgid=None, *, syscall=READ, kthread=False, on_cpu=False, comm="", state=0):  # noqa: PLR0913 - as a task is
        address = self.library.shim_task(pid, pid if tgid is None else tgid, KTHREAD if kthread else 0)
        task = Task(address, pid)
        self.tell("shim_set_syscall", task, ctypes.c_uint64(syscall))
        self.tell("shim_set_on_cpu", task, on_cpu)
        self.tell("shim_set_comm", task, comm.encode())
        self.tell("shim_set_state", task, state)
        return task

    def tell(self, setter, task, *what):
        getattr(self.library, setter)(ctypes.c_void_p(task.address), *what)

    def request(self, size, bio=None, operation=0, device=(8, 0)):
        """`operation` with its flags, as in cmd_flags."""
        request = self.library.shim_request(size, operation, *device)
        self.library.shim_set_bio(ctypes.c_void_p(request), ctypes.c_void_p(bio))
        return request

    def bio(self):
        return self.library.shim_bio()

    def cut_off(self, bio):
        """A part of a bio that is too large."""
        return self.library.shim_cut_off(ctypes.c_void_p(bio))

    def disk(self, major, minor, *, takes_bios=True, stacked=False):
        """One that takes bios as they are submitted; `stacked`: on others."""
        return self.library.shim_disk(major, minor, takes_bios, stacked)

    def bio_for(self, disk, size=4096, *, operation=0, sector=0, pages=None, bio=None):  # noqa: PLR0913 - as a bio is
        """A bio on its way to a disk, and the table of its pages; `pages`: another bio's."""
        bio = bio or self.bio()
        where = (ctypes.c_void_p(disk), operation, ctypes.c_uint64(sector), size, ctypes.c_void_p(pages))
        return bio, self.library.shim_set_disk(ctypes.c_void_p(bio), *where)

    def go_on(self, bio, sector):
        """The rest of the bio begins at `sector`."""
        self.library.shim_set_sector(ctypes.c_void_p(bio), ctypes.c_uint64(sector))

    def group(self, *cgroups):
        """The last of these cgroups, each an id; the first is a child of the root."""
        path = (1, *cgroups)
        return self.library.shim_cgroup(len(path), (ctypes.c_uint64 * len(path))(*path))

    def in_the_name_of(self, bio, group):
        """The bio is accounted to a cgroup."""
        self.library.shim_set_bio_cgroup(ctypes.c_void_p(bio), ctypes.c_void_p(group))

    def do_io_as(self, task, group):
        """Its I/O is accounted to a cgroup of another hierarchy."""
        self.tell("shim_set_io_cgroup", task, ctypes.c_void_p(group))

    def worker(self, pid, errand):
        """A thread of a workqueue that is at this."""
        task = self.task(pid, kthread=True, comm="kworker/0:1")
        self.tell("shim_set_worker", task, errand.encode())
        return task

    def open(self, task, fd, *, mode="file", size=1 << 30):
        """Opens a file as `fd` of `task`; its table of descriptors ends there."""
        types = {"pipe": 1, "character": 2, "directory": 4, "block": 6, "file": 8, "socket": 12, "anonymous": 0}
        number, room = ctypes.c_uint32(fd), ctypes.c_uint32(fd + 1)
        bits = ctypes.c_uint32(types[mode] << 12 | 0o600)
        return self.library.shim_open(ctypes.c_void_p(task.address), number, room, bits, ctypes.c_uint64(size))

    def close(self, task, fd):
        self.tell("shim_close", task, ctypes.c_uint32(fd))

    def mapping(self, file):
        return self.library.shim_mapping(ctypes.c_void_p(file))

    def folio(self, file, pages, index=0):
        return self.library.shim_folio(ctypes.c_void_p(file), ctypes.c_uint32(pages), ctypes.c_uint64(index))

    def limit(self, task, cgroup=77, times=0, ns=0):
        """Into a cgroup below its own that has a quota, which was used up so many times."""
        self.tell("shim_set_quota", task, ctypes.c_uint64(cgroup), times, ctypes.c_uint64(ns))

    def throttle(self, task, *, taken_away=True):
        """The quota of its cgroup, or of one above, is used up; since v6.18 the thread itself is `taken_away` later."""
        queue = self.queue(task)
        self.library.shim_throttle(ctypes.c_void_p(queue))
        self.tell("shim_set_throttled", task, taken_away)
        return queue

    def unthrottle(self, task, queue=None):
        """A new period; `queue`: what was throttled, if the thread is elsewhere now."""
        self.library.shim_unthrottle(ctypes.c_void_p(queue or self.queue(task)))
        self.tell("shim_set_throttled", task, 0)

    def queue(self, task):
        """The run queue of its group on its CPU."""
        return self.library.shim_queue(ctypes.c_void_p(task.address))

    def move(self, task, *cgroups):
        """Into the last of these cgroups, each an id; the first is a child of the root."""
        path = (1, *cgroups)
        group = self.library.shim_cgroup(len(path), (ctypes.c_uint64 * len(path))(*path))
        self.tell("shim_set_cgroup", task, ctypes.c_void_p(group))

    def account(self, task, on_cpu_ns, runnable_ns=0):
        """Sets the kernel's own account of `task` since its birth."""
        self.tell("shim_set_account", task, ctypes.c_uint64(on_cpu_ns), ctypes.c_uint64(runnable_ns))

    # ---- what happens

    def fire(self, entry, *arguments, cpu=0, current=None):
        """`entry` as in the unit: cb_HOOK_SOURCE, or the name of a tracing program."""
        self.set("shim_cpu", ctypes.c_uint32, cpu)
        self.set("shim_current", ctypes.c_void_p, (current or self.idle).address)
        if entry in ("sys_enter_0", "sys_exit_0", "call_returns_0"):  # the registers are those of who makes the call
            arguments = (self.library.shim_regs(ctypes.c_void_p((current or self.idle).address)), *arguments[1:])
        plain = (argument.address if isinstance(argument, Task) else argument for argument in arguments)
        name = entry if entry.startswith(("kfunc__", "kretfunc__")) else f"cb_{entry}"
        getattr(self.library, name)((ctypes.c_uint64 * 8)(*plain))

    def switch(self, out, into, state=0, *, cpu=0, preempt=False):
        """`out` leaves the CPU for `into`; state 0: it could have gone on."""
        self.fire("sched_switch_0", preempt, out, into, state, cpu=cpu, current=out)

    def wake(self, task, *, current=None):
        self.fire("sched_wakeup_0", task, current=current)

    def born(self, task):
        self.fire("sched_wakeup_new_0", task)

    def fork(self, parent, child):
        self.fire("sched_process_fork_0", parent, child, current=parent)
        return child

    def exit(self, task, left=0):
        """`left`: the threads of its group that go on."""
        self.tell("shim_set_live", task, left)
        self.fire("sched_process_exit_0", task, current=task)

    def enter(self, task, number, *arguments, compat=False):
        """`task` makes a system call."""
        self.tell("shim_set_syscall", task, ctypes.c_uint64(number))
        self.tell("shim_set_compat", task, 2 if compat else 0)  # TS_COMPAT
        self.tell("shim_set_arguments", task, compat, *map(ctypes.c_uint64, (*arguments, 0, 0, 0, 0)[:4]))
        self.fire("sys_enter_0", 0, number, current=task)

    def leave(self, task, answer):
        """It returns, after it slept at least once."""
        self.tell("shim_set_switches", task, ctypes.c_uint64(self.now_ns))
        for entry in ("sys_exit_0", "call_returns_0"):
            self.fire(entry, 0, answer, current=task)

    # ---- what the agent does

    def attach(self, target, *members):
        """As kernel/machine.py: the hashes are emptied, and `members` are seeded into a tree."""
        self.run += 1
        self.attached = True
        self.target = target
        shared = ("cb_members", "cb_seeded", "cb_moves", "cb_cuts", "cb_ended_threads", "cb_disk_takers")
        own = ("network_sockets", "network_waiting")
        for name in (*(f"{m.name}_{key.name}" for m in CATALOG for key in m.keyed), *shared, *own):
            entries = self.get(f"{name}_entries")
            ctypes.memset((ctypes.c_uint8 * entries).in_dll(self.library, f"{name}_used"), 0, entries)
        (ctypes.c_uint64 * 1).in_dll(self.library, "cb_recorded_ended_cells")[0] = 0
        for name in ("cb_requests", "cb_disks", *(f"{m.name}_{kept.name}" for m in CATALOG for kept in m.per_disk)):
            self.fill(name, 0)
        self._configure(Phase.SEEDING if target.kind == TargetKind.TREE else Phase.OFF)
        for index, pid in enumerate(members):
            (ctypes.c_uint32 * len(members)).in_dll(self.library, "cb_members_keys")[index] = pid
            (ctypes.c_uint8 * len(members)).in_dll(self.library, "cb_members_used")[index] = 1
        return self

    def tree(self, *members):
        return self.attach(KernelTarget(TargetKind.TREE), *members)

    def cgroup(self, number, level):
        return self.attach(KernelTarget(TargetKind.CGROUP, cgroup_id=number, cgroup_level=level))

    def begin(self):
        """As kernel/machine.py: the first sample is taken before the switch is flipped."""
        if not self.attached:
            self.attach(KernelTarget())
        self.attached = False
        self.first = self.sample()
        self._configure(Phase.ON)
        return self

    def end(self):
        self._configure(Phase.OFF)
        return self

    def _configure(self, phase):
        target = self.target
        head = (self.now_ns, target.cgroup_id, self.run, phase, AGENT, AGENT + 1)
        head = (*head, target.kind, target.cgroup_level)
        packed = machine._CONFIG.pack(*head, self.sample_interval, self.idle_modules)
        size = self.get("cb_config_size")
        assert size == len(packed)
        (ctypes.c_char * size).in_dll(self.library, "cb_config_cells").raw = packed

    def raw(self, name):
        """The memory of an array: of all CPUs, if it is per CPU."""
        return (ctypes.c_char * self.get(f"{name}_size")).in_dll(self.library, f"{name}_cells").raw

    def fill(self, name, byte):
        """Every byte of an array."""
        size = self.get(f"{name}_size")
        ctypes.memset((ctypes.c_char * size).in_dll(self.library, f"{name}_cells"), byte, size)

    def hash(self, name):
        entries, key, leaf = (self.get(f"{name}_{what}") for what in ("entries", "key_size", "leaf_size"))
        used = (ctypes.c_uint8 * entries).in_dll(self.library, f"{name}_used")
        keys = (ctypes.c_char * (entries * key)).in_dll(self.library, f"{name}_keys").raw
        cells = (ctypes.c_char * (entries * leaf)).in_dll(self.library, f"{name}_cells").raw
        return {keys[i * key : i * key + key]: cells[i * leaf : i * leaf + leaf] for i in range(entries) if used[i]}

    def by_disk(self, name, shared):
        """Disk → its records, as kernel/reading/disk_records.py reads them."""
        cells, parts = self.raw(name), 1 if shared else CPUS
        size = len(cells) // parts // DISKS
        places = {number: [(part * DISKS + index) * size for part in range(parts)]
                  for index, number in disk_records.numbers(self.raw("cb_disks")).items()}  # fmt: skip
        return {number.to_bytes(4, "little"): b"".join(cells[at : at + size] for at in places[number])
                for number in places}  # fmt: skip

    def by_cpu(self, name):
        """CPU → its record, as kernel/reading/module_maps.py reads it."""
        raw = self.raw(name)
        return module_maps.cpu_records(raw, len(raw) // CPUS)

    def sample(self):
        modules = {
            module.name: map_decoding.decode(module, self.raw(f"cb_{module.name}"), CPUS, self.run)
            | {keyed.name: self.hash(f"{module.name}_{keyed.name}") for keyed in module.keyed}
            | {kept.name: self.by_disk(f"{module.name}_{kept.name}", kept.shared) for kept in module.per_disk}
            | {record.name: self.by_cpu(f"{module.name}_{record.name}") for record in module.per_cpu_records}
            for module in CATALOG
        }
        lost = map(sum, zip(*sample_reader._LOSS.iter_unpack(self.raw("cb_loss")), strict=True))
        return Sample(
            at_ns=self.now_ns,
            run=self.run,
            modules=modules,
            loss=dict(zip(sample_reader.LOSS_CAUSES, lost, strict=True)),
            tasks=tuple(map_decoding.open_tasks(memoryview(self.raw("cb_tasks")), self.raw("cb_on_cpu"), self.run)),
            members=self.members(),
            processes=tuple(processes(memoryview(self.raw("cb_processes")), CATALOG, self.run)),
        )

    def sums(self, name):
        """A per-CPU struct of u64 fields, summed over the CPUs."""
        words = array("Q", self.raw(name))
        stride = len(words) // CPUS
        return [sum(words[field::stride]) for field in range(stride)]

    def members(self):
        threads, *ended = self.sums("cb_ended")
        processes, seen = self.sums("cb_population")
        singly = map_decoding.ended_threads(self.hash("cb_ended_threads"))
        account = len(Account.__slots__)
        cuts = decode({}, self.hash("cb_cuts")).cuts
        return Members(
            threads,
            Account(*ended[:account]),
            singly,
            processes=processes,
            threads=seen,
            last_words=LastWords(*ended[account:]),
            cuts=cuts,
        )

    def tree_now(self):
        """The thread groups that are followed."""
        return {int.from_bytes(key, "little") for key in self.hash("cb_members")}

    def counted(self, *, closed=False):
        """Module → metric → what it grew by in this run; `closed`: with what is open now."""
        last = self.sample()
        counts = {module: difference(module, self.first, last) for module in CATALOG}
        open_ = open_time(self.first, last, targeted=False)
        return {module.name: close(module, found, open_) if closed else found for module, found in counts.items()}

    def processes(self, *, closed=False):
        """Pid → the process's record in this run; `closed`: with what is open now."""
        last = self.sample()
        found = close_processes(self.first, last, CATALOG) if closed else last.processes
        assert len({process.pid for process in found}) == len(found)
        return {process.pid: process for process in found}

    def lost(self):
        return {cause: count for cause, count in self.sample().loss.items() if count}


def blocked(offcpu):
    """Wait key → time, without the zeros."""
    return {wait: ns for wait, ns in blocked_ns(offcpu).items() if ns}
