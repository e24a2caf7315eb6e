"""What a handler counts, and what a declaration says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SLOTS_PER_OCTAVE_BITS = 4
"""16 slots per power of two: a quantile read from its slot is within 3.1 % of the exact one."""

HISTOGRAM_SLOTS = 640
"""Reaches 2^43 ns (2.4 hours); what is longer is counted in the last slot and exact in `max`."""

DISKS = 64
"""Disks at work in one run, a power of two; what others do is missing by disk, and counted as lost."""

PERCPU_VALUE_LIMIT = 32 * 1024
"""The kernel's largest per-CPU map value (PCPU_MIN_UNIT_SIZE)."""


@dataclass(frozen=True, slots=True)
class Names:
    """What numbers are called on this host; looked up when a sample was taken (kernel/reading/index_names.py)."""

    tables: Mapping[str, Mapping[int, str]]
    """By the `names` of a Table: index → name.  An index without a name is called by its number."""
    stacks: Mapping[int, tuple[str, ...]]
    """Stack id → functions, innermost first."""
    throttled_before: Mapping[int, tuple[int, int]]
    """Cgroup id → (nr_throttled, throttled_ns) when the run began; of a target, its own cgroups and those above."""
    throttled_after: Mapping[int, tuple[int, int]]
    """The same when it ended, of the cgroups that were still there; of a target, also those it came into later."""
    run_ns: int = 0
    """How long the run lasted."""
    lock_stacks: Mapping[tuple[int, int, int, int], tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    """Of an edge (probes/lock_order.py): process, held_at, wanted_at, stack id → the first by name, and the stack."""
    disk_ios: Mapping[int, int] = field(default_factory=dict)
    """Disk → how many reads, writes and discards finished on it in the run, by the kernel's own count."""

    no_calls: str = ""
    """Why the system call that a thread was blocked in is not known here; empty if it is."""

    def of(self, table: str, index: int) -> str:
        return self.tables.get(table, {}).get(index, str(index))

    def of_device(self, number: int) -> str:
        """A block device's name, or its "major:minor" where it has none any more."""
        return self.tables.get("devices", {}).get(number, f"{number >> 20}:{number & 0xFFFFF}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a handler counts.  `name` is the C field and the JSON key, with its unit."""

    name: str
    help: str
    hooks: tuple[str, ...] = ()
    needs: str = ""
    """A fact of the host without which zero would be a guess; see loading/host_features.py."""
    reported: bool = True
    """False: only raw material for a Derived metric."""
    machine_wide: bool = False
    """True: counted for the whole machine whatever the target, because it belongs to a CPU, or to nobody known."""
    needs_target: str = ""
    """Why a run of the whole machine does not have it; empty if it does."""
    sampled: bool = False
    """True: where the run samples, one event in so many is recorded, and stands for all of them (cb_weight)."""
    prometheus: str = ""
    """The series' name where it is not derived from the metric's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter(Metric):
    """One number that only grows: a `u64` field."""

    per_process: bool = False
    """True: also kept for each process, as `MODULE_NAME` of struct cb_process (probes/lib/process.h)."""
    squares: str = ""
    """Of a sampled sum: the raw Counter of weight · x², from which its standard error is estimated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Metric):
    """Counters by index: `u64 name[entries]`.  `names` says what an index is called (kernel/reading/index_names.py)."""

    entries: int
    names: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution(Metric):
    """A histogram of nanoseconds: `struct cb_histogram name`.  In JSON the values are microseconds.

    A distribution called `latency_ns` *is* its module's section; any other is a key of it.
    """

    def __post_init__(self) -> None:
        if not self.name.endswith("_ns"):
            raise ValueError(f"distribution {self.name}: recorded in nanoseconds, so its name must end in _ns")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed(Metric):
    """Counters by key in a hash of their own, which the C file declares as MODULE_NAME."""

    key: str
    """The C type of the key."""
    value: str = "u64"
    entries: int
    when_full: str
    label: str = ""
    option: str = ""
    """`module:option`: there is room for one entry only where that was not asked for."""
    per_cpu: bool = False
    """True: each CPU has a value of its own, of u64 words (`percpu_hash`); what is read is their sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerDisk(Metric):
    """A record for each disk, in an array MODULE_NAME of CB_DISKS, which the C file declares.

    As a value: the disk's number (4 bytes) → its records, one CPU's behind the other's.  It begins anew with each run.
    """

    value: str
    """The C type of a record."""
    shared: bool = False
    """True: the CPUs have one record together."""
    when_full: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Procfs(Metric):
    """A counter that the kernel keeps for the whole machine, and no hook can tell apart: `file:field` below /proc."""

    field: str
    machine_wide: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived(Metric):
    """A key of the section that the module's `derive` computes from the metrics named in `of`.

    `label`: the value is a list of {label, …, `value`} or a mapping label → value; empty: it is a number.
    """

    of: tuple[str, ...]
    label: str = ""
    label_help: str = ""
    """Of a list: what the label says."""
    value: str = ""
    inline: bool = False
    """The mapping's entries are keys of the section itself."""
    gauge: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """A map of the module's own that is no metric: what is pending, and what happens when it is full.

    With `field`, it is no map but an array beside the metrics in the per-CPU struct.
    """

    name: str
    entries: int
    when_full: str
    field: bool = False
    option: str = ""
    """As in Keyed."""
    permanent: bool = False
    """True: the agent fills it, and it stays from run to run."""
