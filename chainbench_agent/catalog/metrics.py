"""The metrics that a module may declare, and their properties."""

from __future__ import annotations

from dataclasses import dataclass

from chainbench_agent.catalog.checks import KernelCounter
from chainbench_agent.catalog.names import IndexNames

SLOTS_PER_OCTAVE_BITS = 4
"""16 slots per power of two: a quantile read from its slot is within 3.1 % of the exact one."""

HISTOGRAM_SLOTS = 640
"""Reaches 2^43 ns (2.4 hours); what is longer is counted in the last slot and exact in `max`."""

DISKS = 64
"""Disks at work in one run, a power of two; what others do is missing by disk, and counted as lost."""

PERCPU_VALUE_LIMIT = 32 * 1024
"""The kernel's largest per-CPU map value (PCPU_MIN_UNIT_SIZE)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number or numbers that a handler counts.  `name` is the C field and the JSON key, with its unit."""

    name: str
    help: str
    hooks: tuple[str, ...] = ()
    needs: str = ""
    """A fact of the host without which zero would be a guess; see loading/host_features.py."""
    reported: bool = True
    """False: only raw material for a Derived metric."""
    machine_wide: bool = False
    """True: counted for the whole machine whatever the target, because it belongs to a CPU, or to no known thread."""
    needs_target: str = ""
    """Why a run of the whole machine does not have it; empty if it does."""
    sampled: bool = False
    """True: where the run samples, one event in so many is recorded, and stands for all of them (cb_weight)."""
    prometheus: str = ""
    """The series' name where it is not derived from the metric's."""
    each_of: tuple[str, ...] = ()
    """Hooks whose every event counts exactly once here, if it is the target's: it says how many of them are."""
    kernel_counter: KernelCounter | None = None
    """The kernel's own count of the same, with which the evidence of a whole machine compares it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter(Metric):
    """One number that only grows: a `u64` field."""

    per_process: bool = False
    """True: also counted for each process, as `MODULE_NAME` of struct cb_process (probes/process.h)."""
    squares: str = ""
    """For a sampled sum: the raw Counter of weight · x², from which its standard error is estimated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Metric):
    """Counters by index: `u64 name[entries]`.  `names` says what an index is called."""

    entries: int
    names: IndexNames
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PmuCounters(Table):
    """The CPUs' own counters of `events`: their values, the times they were wanted, the times they were counting.

    The agent opens the events and puts them into the map `cb_counter_events`; the module's programs read them there.
    """

    events: tuple[str, ...]
    """By the names of loading/pmu_events.py, in the order in which the module's C file reads them."""
    span: str
    """The module's PerCpu map: {u32 tid; u32 run; since[events]}, what the counters stood at when `tid` entered."""


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

    As a value: the disk's number (4 bytes) → its records, one CPU's behind the other's.  Each run begins at zero.
    """

    value: str
    """The C type of a record."""
    shared: bool = False
    """True: the CPUs have one record together."""
    when_full: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Procfs(Metric):
    """A counter of the kernel's own for the whole machine, `file:field` below /proc: no hook sees its events."""

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
    """For a list: the meaning of the label."""
    value: str = ""
    inline: bool = False
    """The mapping's entries are keys of the section itself."""
    gauge: bool = False
