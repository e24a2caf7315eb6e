"""The words a module describes itself with.

A module is a pair of files in probes/: `NAME.c` holds one inlined handler per hook, `NAME.py` declares what the
handlers count.  Everything else is derived from the declaration: the C structs and maps, the JSON, the Prometheus
series, the documentation.

    Counter       one number that only grows
    Table         counters by a small index (a softirq vector, a system call)
    Distribution  a log-linear histogram with exact count, sum, min and max
    Keyed         counters by an arbitrary key, in a bounded hash
    PerDisk       a record for each disk
    Procfs        a counter of the kernel's own, of the whole machine
    Derived       computed from these when the evidence is built
    Event         rare and notable: told as it happens, where that was asked for

In the evidence, a name ending in `_ns` becomes `_ms` (or `_us` in a distribution).
"""

from chainbench_agent.catalog.events import Event
from chainbench_agent.catalog.hooks import (
    ANY_OF,
    RESULT,
    Hook,
    Kind,
    Source,
    fentry,
    fexit,
    kprobe,
    kretprobe,
    perf,
    raw_tracepoint,
    tp_btf,
    uprobe,
    uretprobe,
)
from chainbench_agent.catalog.metrics import (
    DISKS,
    HISTOGRAM_SLOTS,
    PERCPU_VALUE_LIMIT,
    SLOTS_PER_OCTAVE_BITS,
    Counter,
    Derived,
    Distribution,
    Keyed,
    Metric,
    Names,
    PerDisk,
    Procfs,
    Scratch,
    Table,
)
from chainbench_agent.catalog.module import Module

__all__ = [
    "ANY_OF",
    "DISKS",
    "HISTOGRAM_SLOTS",
    "PERCPU_VALUE_LIMIT",
    "RESULT",
    "SLOTS_PER_OCTAVE_BITS",
    "Counter",
    "Derived",
    "Distribution",
    "Event",
    "Hook",
    "Keyed",
    "Kind",
    "Metric",
    "Module",
    "Names",
    "PerDisk",
    "Procfs",
    "Scratch",
    "Source",
    "Table",
    "fentry",
    "fexit",
    "kprobe",
    "kretprobe",
    "perf",
    "raw_tracepoint",
    "tp_btf",
    "uprobe",
    "uretprobe",
]
