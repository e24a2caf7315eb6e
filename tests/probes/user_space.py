"""A kernel that a test plays itself: it holds the clock, fires the hooks, and reads the maps as the agent does."""

import ctypes
from dataclasses import dataclass

from chainbench_agent.evidence.build import difference
from chainbench_agent.evidence.open_intervals import close_intervals
from chainbench_agent.evidence.sample import Sample
from chainbench_agent.kernel import machine, values
from chainbench_agent.kernel.fuse import fuse
from chainbench_agent.probes import CATALOG, HOOKS

CPUS = 4  # SHIM_CPUS
AGENT = 900
"""Thread group of the agent; its parent's is the next."""

INTERRUPTIBLE, UNINTERRUPTIBLE, DEAD = 0x1, 0x2, 0x80
KTHREAD = 0x00200000  # PF_KTHREAD
READ, FUTEX = 0, 202
NO_SYSCALL = (1 << 64) - 1  # orig_ax outside of any


def fused(modules=CATALOG, has_field=lambda _field: True):
    return fuse(modules, HOOKS, lambda hook: hook.sources, has_field)


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
        for maker in ("shim_task", "shim_request"):
            getattr(library, maker).restype = ctypes.c_void_p
        self.idle = self.task(0)
        self.set("shim_current", ctypes.c_void_p, self.idle.address)

    def set(self, name, kind, value):
        kind.in_dll(self.library, name).value = value

    def get(self, name, kind=ctypes.c_uint64):
        return kind.in_dll(self.library, name).value

    def at(self, now_ns):
        self.set("shim_now_ns", ctypes.c_uint64, now_ns)
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

    def request(self, size):
        return self.library.shim_request(size)

    # ---- what happens

    def fire(self, entry, *arguments, cpu=0, current=None):
        """`entry` as in the unit: cb_HOOK_SOURCE."""
        self.set("shim_cpu", ctypes.c_uint32, cpu)
        self.set("shim_current", ctypes.c_void_p, (current or self.idle).address)
        plain = (argument.address if isinstance(argument, Task) else argument for argument in arguments)
        getattr(self.library, f"cb_{entry}")((ctypes.c_uint64 * 8)(*plain))

    def switch(self, out, into, state=0, *, cpu=0, preempt=False):
        """`out` leaves the CPU for `into`; state 0: it could have gone on."""
        self.fire("sched_switch_0", preempt, out, into, state, cpu=cpu)

    def wake(self, task):
        self.fire("sched_wakeup_0", task)

    def born(self, task):
        self.fire("sched_wakeup_new_0", task)

    # ---- what the agent does

    def begin(self):
        """As kernel/machine.py: the first sample is taken before the switch is flipped."""
        self.run += 1
        self._configure(recording=False)
        self.first = self.sample()
        self._configure(recording=True)
        return self

    def end(self):
        self._configure(recording=False)
        return self

    def _configure(self, *, recording):
        packed = machine._CONFIG.pack(self.now_ns, self.run, recording, AGENT, AGENT + 1)
        size = self.get("cb_config_size")
        assert size == len(packed)
        (ctypes.c_char * size).in_dll(self.library, "cb_config_cells").raw = packed

    def raw(self, name):
        """The memory of an array: of all CPUs, if it is per CPU."""
        return (ctypes.c_char * self.get(f"{name}_size")).in_dll(self.library, f"{name}_cells").raw

    def hash(self, name):
        entries, key, leaf = (self.get(f"{name}_{what}") for what in ("entries", "key_size", "leaf_size"))
        used = (ctypes.c_uint8 * entries).in_dll(self.library, f"{name}_used")
        keys = (ctypes.c_char * (entries * key)).in_dll(self.library, f"{name}_keys").raw
        cells = (ctypes.c_char * (entries * leaf)).in_dll(self.library, f"{name}_cells").raw
        return {keys[i * key : i * key + key]: cells[i * leaf : i * leaf + leaf] for i in range(entries) if used[i]}

    def sample(self):
        modules = {
            module.name: values.decode(module, self.raw(f"cb_{module.name}"), CPUS, self.run)
            | {keyed.name: self.hash(f"{module.name}_{keyed.name}") for keyed in module.keyed}
            for module in CATALOG
        }
        lost = map(sum, zip(*machine._LOSS.iter_unpack(self.raw("cb_loss")), strict=True))
        return Sample(
            at_ns=self.now_ns,
            modules=modules,
            loss=dict(zip(machine.LOSS_CAUSES, lost, strict=True)),
            tasks=tuple(values.open_tasks(memoryview(self.raw("cb_tasks")), self.raw("cb_on_cpu"), self.run)),
            idle=tuple(values.idle_cpus(self.raw("cpu_idle_span"), self.run)),
        )

    def counted(self, *, closed=False):
        """Module → metric → what it grew by in this run; `closed`: with what is open now."""
        last = self.sample()
        counts = {module.name: difference(module, self.first, last) for module in CATALOG}
        return close_intervals(counts, self.first, last) if closed else counts

    def lost(self):
        return {cause: count for cause, count in self.sample().loss.items() if count}


def blocked(offcpu, key="blocked_ns"):
    """Wait → time (or count), without the zeros."""
    return {wait: value for wait, value in enumerate(offcpu[key]) if value}
