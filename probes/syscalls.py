"""System calls made.  Kernel side: syscalls.c"""

from collections import Counter as Tally
from collections.abc import Mapping
from typing import Any

from chainbench_agent.spec import Counter, Derived, Module, Names, Table

ALWAYS = ("futex", "fsync", "openat", "read", "write")
"""Named first, and named even when they are zero: these were counted too."""


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    tally: Tally[str] = Tally()
    for table in ("calls", "calls_32bit"):
        for number, count in enumerate(counts[table]):
            if count:
                tally[names.of(table, number)] += count
    tally["unknown"] += counts["unknown_calls"]
    rest = {name: count for name, count in tally.most_common() if count and name not in ALWAYS}
    return {"by_name": {name: tally[name] for name in ALWAYS} | rest}


MODULE = Module(
    name="syscalls",
    section="syscall_counts",
    question="What did the workload ask of the kernel?",
    metrics=(
        Table(
            name="calls",
            help="System calls made, by name, counted as they are entered.",
            hooks=("sys_enter",),
            # Linux 7.2 ends at 471
            entries=512,
            names="calls",
            sampled=True,
            reported=False,
            label="syscall",
        ),
        Table(
            name="calls_32bit",
            help="System calls made by 32-bit programs.",
            hooks=("sys_enter",),
            entries=512,
            names="calls_32bit",
            sampled=True,
            reported=False,
            label="syscall",
        ),
        Counter(
            name="unknown_calls",
            help="System calls with a number above every known one (x32 programs, or calls that do not exist).",
            hooks=("sys_enter",),
            sampled=True,
            reported=False,
        ),
        Derived(
            name="by_name",
            help="System calls made, by name, counted as they are entered.",
            of=("calls", "calls_32bit", "unknown_calls"),
            label="syscall",
            inline=True,
            prometheus="chainbench_syscall_count_total",
        ),
        Counter(
            name="total",
            sampled=True,
            help="System calls made.",
            hooks=("sys_enter",),
            prometheus="chainbench_syscalls_total",
            per_process=True,
        ),
    ),
    derive=derive,
)
