"""System calls made, and those that failed.  Kernel side: syscalls.c"""

from collections import Counter as Tally
from collections.abc import Mapping
from errno import errorcode
from struct import unpack
from typing import Any

from chainbench_agent.catalog import Counter, Derived, HostNames, Keyed, Module, Names, Table

ALWAYS = ("futex", "fsync", "openat", "read", "write")
"""Calls that are listed first, even with a count of zero."""

UNKNOWN = 0xFFFFFFFF  # SYSCALLS_UNKNOWN_CALL


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    tally: Tally[str] = Tally()
    for table in ("calls", "calls_32bit"):
        for number, count in enumerate(counts[table]):
            if count:
                tally[names.of(table, number)] += count
    tally["unknown"] += counts["unknown_calls"]
    rest = {name: count for name, count in tally.most_common() if count and name not in ALWAYS}
    by_name = {name: tally[name] for name in ALWAYS} | rest
    return {"by_name": by_name, "errors": _errors(counts["failures"], names)}


def _errors(failures: Mapping[bytes, bytes], names: Names) -> list[dict[str, Any]]:
    """The most frequent first.  An error of the kernel's own that slipped out (524, ENOTSUPP) has its number only."""
    tally: Tally[tuple[str, str]] = Tally()
    for key, value in failures.items():
        number, error, of_32bit = unpack("=IHH", key)
        name = "unknown" if number == UNKNOWN else names.of("calls_32bit" if of_32bit else "calls", number)
        tally[name, errorcode.get(error, str(error))] += int.from_bytes(value, "little")
    ordered = sorted(tally.items(), key=lambda item: (-item[1], item[0]))
    return [{"syscall": name, "errno": error, "count": count} for (name, error), count in ordered]


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
            names=HostNames("calls"),
            sampled=True,
            reported=False,
            label="syscall",
        ),
        Table(
            name="calls_32bit",
            help="System calls made by 32-bit programs.",
            hooks=("sys_enter",),
            entries=512,
            names=HostNames("calls_32bit"),
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
            each_of=("sys_enter", "sys_exit"),
        ),
        # ---- the option `errors`
        Counter(
            name="failed",
            help=(
                "System calls that returned an error, each counted as it returns. This includes calls that seccomp "
                "refused, which are in no other count because they are never entered."
            ),
            hooks=("call_returns",),
            per_process=True,
        ),
        Counter(
            name="interrupted",
            help=(
                "System calls that a signal interrupted. They are not in failed, because the kernel decides only later "
                "whether a call is made again (and counted again) or returns EINTR."
            ),
            hooks=("call_returns",),
        ),
        Keyed(
            name="failures",
            help="System calls that returned an error, by call and error.",
            hooks=("call_returns",),
            key="struct syscalls_failure",
            entries=1024,
            when_full="a further pair is counted in failed only, and as lost",
            reported=False,
        ),
        Derived(
            name="errors",
            help="System calls that returned an error, by call and error.",
            of=("failures",),
            label="syscall",
            label_help="The call's name, or its number where it has none here; `unknown`: no such number is known.",
            value="count",
            prometheus="chainbench_syscall_errors_total",
        ),
    ),
    options=("errors",),
    derive=derive,
)
