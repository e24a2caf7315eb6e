"""The words a module describes itself with.

A module is a pair of files in probes/: `NAME.c` holds one inlined handler per hook, `NAME.py` declares what the
handlers count.  Everything else is derived from the declaration: the C structs and maps, the JSON, the Prometheus
series, the documentation.

Metrics, which the evidence may have:

    Counter       one number that only grows
    Table         counters by a small index (a softirq vector, a system call)
    PmuCounters   a Table of the CPU's own counters
    Distribution  a log-linear histogram with exact count, sum, min and max
    Keyed         counters by an arbitrary key, in a bounded hash
    PerDisk       a record for each disk
    Procfs        a counter of the kernel's own, of the whole machine
    Derived       computed from these when the evidence is built

Maps without figures of their own:

    Stacks        call stacks, named when the evidence is built
    PerCpu        what each CPU is at
    HostTable     what the agent knows of the host, for handlers to look up
    Scratch       anything else that is pending in the kernel

    Event         rare and notable: emitted as it happens, where that was asked for

Functions, all pure: `derive` computes the Derived metrics, `close` adds what was open when the run ended, and
`explain_waits` says what threads were blocked in.  `Role`, `Same`, `PartOf`, `SumOf` and `KernelCounter` declare what
figures are compared with.

In the evidence, a name ending in `_ns` becomes `_ms` (or `_us` in a distribution).
"""

from chainbench_agent.catalog.checks import READ_AROUND, Check, KernelCounter, PartOf, Role, RoleName, Same, SumOf
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
from chainbench_agent.catalog.maps import HostTable, PerCpu, Scratch, Stacks
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
    PerDisk,
    PmuCounters,
    Procfs,
    Table,
)
from chainbench_agent.catalog.module import Module
from chainbench_agent.catalog.names import NO_STACK, CallStack, FixedNames, Frames, HostNames, IndexNames, Names
from chainbench_agent.catalog.open_time import IdleThreads, OpenThread, OpenTime
from chainbench_agent.catalog.waits import BlockedTime, Sampled, Waits, WaitStacks, no_stacks

__all__ = [
    "ANY_OF",
    "DISKS",
    "HISTOGRAM_SLOTS",
    "NO_STACK",
    "PERCPU_VALUE_LIMIT",
    "READ_AROUND",
    "RESULT",
    "SLOTS_PER_OCTAVE_BITS",
    "BlockedTime",
    "CallStack",
    "Check",
    "Counter",
    "Derived",
    "Distribution",
    "Event",
    "FixedNames",
    "Frames",
    "Hook",
    "HostNames",
    "HostTable",
    "IdleThreads",
    "IndexNames",
    "KernelCounter",
    "Keyed",
    "Kind",
    "Metric",
    "Module",
    "Names",
    "OpenThread",
    "OpenTime",
    "PartOf",
    "PerCpu",
    "PerDisk",
    "PmuCounters",
    "Procfs",
    "Role",
    "RoleName",
    "Same",
    "Sampled",
    "Scratch",
    "Source",
    "Stacks",
    "SumOf",
    "Table",
    "WaitStacks",
    "Waits",
    "fentry",
    "fexit",
    "kprobe",
    "kretprobe",
    "no_stacks",
    "perf",
    "raw_tracepoint",
    "tp_btf",
    "uprobe",
    "uretprobe",
]
