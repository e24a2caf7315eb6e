"""The words a module describes itself with.

A module is a pair of files in probes/: `NAME.c` holds one inlined handler per hook, `NAME.py` declares what the
handlers count.  Everything else is derived from the declaration: the C structs and maps, the JSON, the Prometheus
series, the documentation.

    Counter       one number that only grows
    Table         counters by a small index (a softirq vector, a system call)
    Distribution  a log-linear histogram with exact count, sum, min and max
    Keyed         counters by an arbitrary key, in a bounded hash
    Procfs        a counter of the kernel's own, of the whole machine
    Derived       computed from these when the evidence is built

In the evidence, a name ending in `_ns` becomes `_ms` (or `_us` in a distribution).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["raw_tracepoint", "fentry", "fexit", "kprobe", "kretprobe", "perf"]

SLOTS_PER_OCTAVE_BITS = 4
"""16 slots per power of two: a quantile read from its slot is within 3.1 % of the exact one."""

HISTOGRAM_SLOTS = 640
"""Reaches 2^43 ns (2.4 hours); what is longer is counted in the last slot and exact in `max`."""

PERCPU_VALUE_LIMIT = 32 * 1024
"""The kernel's largest per-CPU map value (PCPU_MIN_UNIT_SIZE)."""


@dataclass(frozen=True, slots=True)
class Source:
    """A place in the kernel that can feed a hook.

    `args` says where each of the hook's parameters comes from: a position among the place's own arguments (in `fexit`
    the return value comes last, in `kretprobe` it is the only one), or a C expression over the parameters before it.
    Empty: same position, same type.  `perf` is a counter that overflows at each event, by perf's own name for it
    (kernel/perf_events.py); it has no arguments.

    `own` are the place's first arguments, with the types that they must have: for expressions to use.
    """

    kind: Kind
    target: str
    args: tuple[int | str, ...] = ()
    own: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}:{self.target}"


def raw_tracepoint(target: str, *args: int | str, own: tuple[str, ...] = ()) -> Source:
    return Source("raw_tracepoint", target, args, own)


def fentry(target: str, *args: int | str, own: tuple[str, ...] = ()) -> Source:
    return Source("fentry", target, args, own)


def fexit(target: str, *args: int | str) -> Source:
    return Source("fexit", target, args)


def kprobe(target: str, *args: int | str, own: tuple[str, ...] = ()) -> Source:
    return Source("kprobe", target, args, own)


def kretprobe(target: str, *args: int | str) -> Source:
    return Source("kretprobe", target, args)


def perf(target: str, *args: int | str) -> Source:
    return Source("perf", target, args)


@dataclass(frozen=True, slots=True)
class Hook:
    """Something that happens in the kernel, with its typed parameters and its sources, best first.

    A hook without sources is raised by a state machine (probes/sched.h, block.h): then `raised_on` names the hooks
    it needs, those that are `targeted` only when there is a target.
    """

    name: str
    params: tuple[str, ...]
    sources: tuple[Source, ...] = ()
    raised_on: tuple[str, ...] = ()
    targeted: bool = False
    """True: only of use when there is a target, and only attached then."""
    stands_in_for: tuple[str, ...] = ()
    """Only attached where this kernel lacks one of these; what is raised on both is raised on the one or the other."""
    timed: bool = True
    """False: no handler looks at `now_ns`, so reading the clock is spared."""
    option: str = ""
    """`module:option`: only loaded, and only attached, where that was asked for (plan.py)."""
    optional: bool = False
    """True: a kernel that has none of the sources misses nothing, because another hook sees the same there."""
    unless: Source | None = None
    """A place that only some kernels have: where it is, these events come by another hook, and this one is not used."""


@dataclass(frozen=True, slots=True)
class Names:
    """What numbers are called on this host; looked up when a sample was taken (kernel/names.py)."""

    tables: Mapping[str, Mapping[int, str]]
    """By the `names` of a Table: index → name.  An index without a name is called by its number."""
    stacks: Mapping[int, tuple[str, ...]]
    """Stack id → functions, innermost first."""
    throttled_before: Mapping[int, tuple[int, int]]
    """Cgroup id → (nr_throttled, throttled_ns) when the run began."""
    throttled_after: Mapping[int, tuple[int, int]]
    """The same when it ended, of the cgroups that were still there."""
    run_ns: int = 0
    """How long the run lasted."""

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
    """A fact of the host without which zero would be a guess; see kernel/facts.py."""
    reported: bool = True
    """False: only raw material for a Derived metric."""
    machine_wide: bool = False
    """True: counted for the whole machine whatever the target, because it belongs to a CPU and not to a thread."""
    sampled: bool = False
    """True: where the run samples, one event in so many is recorded, and stands for all of them (cb_weight)."""
    prometheus: str = ""
    """The series' name where it is not derived from the metric's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter(Metric):
    """One number that only grows: a `u64` field."""

    per_process: bool = False
    """True: also kept for each process, as `MODULE_NAME` of struct cb_process (probes/process.h)."""
    squares: str = ""
    """Of a sampled sum: the raw Counter of weight · x², from which its standard error is estimated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Metric):
    """Counters by index: `u64 name[entries]`.  `names` says what an index is called (see kernel/names.py)."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One of the ten: what it asks, and what it counts."""

    name: str
    question: str
    metrics: tuple[Metric, ...]
    scratch: tuple[Scratch, ...] = ()
    options: tuple[str, ...] = ()
    """What has to be asked for by name, as `module:option`; the hooks of an option say so."""
    section: str = ""
    """The evidence key, where it is not the module's name."""
    derive: Callable[[Mapping[str, Any], Names], dict[str, Any]] | None = None
    """Pure: the differences of this module's metrics, and the names of things → the Derived metrics.

    A derived key that is left out of the answer has no value in this run.
    """

    @property
    def section_key(self) -> str:
        return self.section or self.name

    @property
    def names(self) -> tuple[str, ...]:
        """What can be asked for: the module, and each of its options."""
        return (self.name, *(f"{self.name}:{option}" for option in self.options))

    @property
    def hooks(self) -> frozenset[str]:
        return frozenset(hook for metric in self.metrics for hook in metric.hooks)

    @property
    def per_cpu(self) -> tuple[Metric, ...]:
        """The metrics that live in the module's own per-CPU struct."""
        return tuple(m for m in self.metrics if isinstance(m, Counter | Table | Distribution))

    @property
    def per_process(self) -> tuple[Counter, ...]:
        """The main figures: those of which `top_processes` tells for single processes, most telling first."""
        return tuple(m for m in self.metrics if isinstance(m, Counter) and m.per_process)

    @property
    def procfs(self) -> tuple[Procfs, ...]:
        return tuple(m for m in self.metrics if isinstance(m, Procfs))

    @property
    def reported(self) -> tuple[Metric, ...]:
        """The metrics that appear in the evidence."""
        return tuple(m for m in self.metrics if m.reported)

    @property
    def own_maps(self) -> tuple[str, ...]:
        """The maps that the C file declares, each as MODULE_<name>."""
        return (*(m.name for m in self.keyed), *(s.name for s in self.scratch if not s.field))

    def hooks_of(self, metric: Metric) -> tuple[str, ...]:
        """The hooks that a metric needs; those of a derived one are its sources'."""
        hooks = (*metric.hooks, *(hook for source in self.sources_of(metric) for hook in source.hooks))
        return tuple(dict.fromkeys(hooks))

    def sources_of(self, metric: Metric) -> tuple[Metric, ...]:
        """The metrics that a derived one is computed from; none for others."""
        return tuple(m for m in self.metrics if m.name in metric.of) if isinstance(metric, Derived) else ()

    @property
    def keyed(self) -> tuple[Keyed, ...]:
        return tuple(m for m in self.metrics if isinstance(m, Keyed))
