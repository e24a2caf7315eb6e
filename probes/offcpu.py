"""Time off the CPUs, and why.  Kernel side: offcpu.h, offcpu.c"""

from collections.abc import Mapping
from typing import Any

from chainbench_agent.catalog import (
    Counter,
    Derived,
    HostTable,
    Keyed,
    Module,
    Names,
    OpenTime,
    PartOf,
    Role,
    Scratch,
    Stacks,
    SumOf,
    Waits,
)
from chainbench_agent.probes.blocked_time import blocked_ns, blocked_time, stacks
from chainbench_agent.probes.wait_reasons import TOP, exact_part, top_reasons

BLOCKED = ("task_blocks", "task_blocked")

NEEDS_TARGET = "which threads hardly ran is known only with a target: otherwise, ended threads are not recorded"


def close(counts: Mapping[str, Any], open_time: OpenTime) -> dict[str, Any]:
    """Adds threads that were off the CPUs.  `open_waits`: (wait, functions) → ns, which is no metric and exact."""
    threads = [thread for thread in open_time.threads if thread.off_cpu_counts]
    open_waits: dict[tuple[int, tuple[str, ...]], int] = {}
    for thread in threads:
        if thread.blocked_ns:
            wait = thread.wait, thread.frames
            open_waits[wait] = open_waits.get(wait, 0) + thread.blocked_ns
    return {
        "off_cpu_ns": counts["off_cpu_ns"] + sum(thread.off_cpu_ns for thread in threads),
        "woken_wait_ns": counts["woken_wait_ns"] + sum(thread.woken_wait_ns for thread in threads),
        "preempted_wait_ns": counts["preempted_wait_ns"] + sum(thread.preempted_wait_ns for thread in threads),
        "throttled_wait_ns": counts["throttled_wait_ns"] + sum(thread.throttled_ns for thread in threads),
        "asleep_ns": counts["asleep_ns"] + sum(thread.blocked_ns for thread in threads),
        "open_waits": open_waits,
        "idle_threads_ns": open_time.idle.off_cpu_ns if open_time.idle else 0,
    }


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    waiting = [
        exact_part("runnable", "run queue (woken)", counts["woken_wait_ns"]),
        exact_part("runnable", "run queue (preempted)", counts["preempted_wait_ns"]),
        exact_part("throttled", "throttled", counts["throttled_wait_ns"]),
    ]
    blocked = Waits(blocked_ns(counts), stacks(counts, names))
    return _totals(counts) | {"top_reasons": top_reasons(blocked, waiting, names)}


def _totals(counts: Mapping[str, Any]) -> dict[str, Any]:
    blocked_ms = counts["asleep_ns"] / 1e6
    woken_ms, preempted_ms = counts["woken_wait_ns"] / 1e6, counts["preempted_wait_ns"] / 1e6
    throttled_ms = counts["throttled_wait_ns"] / 1e6
    return {
        "total_ms": blocked_ms + woken_ms + preempted_ms + throttled_ms,
        "voluntary_ms": blocked_ms + woken_ms,
        "involuntary_ms": preempted_ms + throttled_ms,
        "throttled_ms": throttled_ms,
        "blocked_ms": blocked_ms,
        "runnable_ms": woken_ms + preempted_ms,
        "blocks": counts["block_count"],
        "idle_threads_ms": counts.get("idle_threads_ns", 0) / 1e6,
    }


MODULE = Module(
    name="offcpu",
    question="What did the threads wait for?",
    metrics=(
        Derived(
            name="total_ms",
            help=(
                "Time that user threads spent off the CPUs: blocked, or runnable and waiting for a CPU. With a target, "
                "threads that slept during the whole run count as well; for the whole machine, only threads that were "
                "switched or woken count."
            ),
            of=("asleep_ns", "woken_wait_ns", "preempted_wait_ns", "throttled_wait_ns"),
            gauge=True,
            prometheus="chainbench_offcpu_milliseconds_total",
        ),
        Derived(
            name="voluntary_ms",
            help="Off-CPU time that began with the thread blocking, until it ran again, without throttled time.",
            of=("asleep_ns", "woken_wait_ns"),
        ),
        Derived(
            name="involuntary_ms",
            help="Off-CPU time that began with the thread losing its CPU to another, and all throttled time.",
            of=("preempted_wait_ns", "throttled_wait_ns"),
        ),
        Derived(
            name="throttled_ms",
            help="Time that user threads could not run: the CPU quota of their cgroup, or of one above, was used up.",
            of=("throttled_wait_ns",),
        ),
        Derived(name="blocked_ms", help="Time that user threads were asleep.", of=("asleep_ns",)),
        Derived(
            name="runnable_ms",
            help="Time that user threads waited on a run queue.",
            of=("woken_wait_ns", "preempted_wait_ns"),
        ),
        Derived(
            name="idle_threads_ms",
            help=(
                "The part of total_ms that belongs to idle threads: those that existed for at least half of the run, "
                "and were on a CPU for less than 1 ms or a thousandth of it. The main thread of the target is never "
                "idle."
            ),
            of=("asleep_ns", "woken_wait_ns", "preempted_wait_ns", "throttled_wait_ns"),
            needs_target=NEEDS_TARGET,
        ),
        Derived(name="blocks", help="Times that user threads fell asleep.", of=("block_count",)),
        Derived(
            name="top_reasons",
            help=(
                f"The {TOP} longest reasons. Time is exact by system call and kind of file. If these wait in "
                "several functions, the split is exact for waits of a millisecond and longer; shorter waits are "
                "sampled in proportion to time (`sampled_percent`, `standard_error_ms`)."
            ),
            of=("blocked_ns", "woken_wait_ns", "preempted_wait_ns", "throttled_wait_ns", "sampled_ns"),
            label="reason",
            label_help="The kernel function in which the thread blocked, or else what is known of the wait.",
            value="ms",
            gauge=True,
            prometheus="chainbench_offcpu_reason_seconds",
        ),
        Counter(
            name="off_cpu_ns",
            help="Time that user threads spent off the CPUs.",
            hooks=("task_blocked", "task_waited", "task_throttled"),
            per_process=True,
            reported=False,
        ),
        Counter(
            name="block_count",
            help="Times that user threads fell asleep.",
            hooks=("task_blocks",),
            reported=False,
        ),
        Counter(
            name="asleep_ns",
            help="Time that user threads were asleep.",
            hooks=("task_blocked",),
            reported=False,
        ),
        Counter(
            name="woken_wait_ns",
            help="Time that user threads waited for a CPU after they were woken.",
            hooks=("task_waited",),
            reported=False,
        ),
        Counter(
            name="preempted_wait_ns",
            help="Time that user threads waited for a CPU after they lost it to another.",
            hooks=("task_waited",),
            reported=False,
        ),
        Counter(
            name="throttled_wait_ns",
            help="Time that user threads could not run: the CPU quota of their cgroup, or of one above, was used up.",
            hooks=("task_throttled",),
            reported=False,
        ),
        Keyed(
            name="blocked_ns",
            help="Time that user threads were asleep, by wait.",
            hooks=BLOCKED,
            key="u32",
            entries=2048,
            per_cpu=True,
            when_full="that time stays in the sums, has no reason, and is counted as lost",
            reported=False,
        ),
        Keyed(
            name="sampled_ns",
            help="Blocked time of the waits whose stack was walked, by wait and stack.",
            hooks=BLOCKED,
            key="struct offcpu_stack",
            value="struct offcpu_sampled",
            entries=4096,
            when_full="the wait keeps its system call, loses its function, and is counted as lost",
            reported=False,
        ),
        Keyed(
            name="by_thread_ns",
            help="Blocked time of a target's threads, by thread and wait.",
            hooks=BLOCKED,
            key="struct offcpu_thread",
            entries=8192,
            when_full="the record used longest ago is dropped: its blocked time stays in the total, without a reason",
            reported=False,
        ),
        Keyed(
            name="sampled_by_thread",
            help="As sampled_ns, by thread as well.",
            hooks=BLOCKED,
            key="struct offcpu_thread_stack",
            value="struct offcpu_sampled",
            entries=16384,
            when_full="the record used longest ago is dropped: that thread's time is split as the whole target's is",
            reported=False,
        ),
    ),
    scratch=(
        Stacks(
            name="stacks",
            entries=4096,
            when_full="as sampled_ns; such waits have no function",
            depth=16,
            with_callee=True,
        ),
        Scratch(name="walked", entries=1, when_full="an array: it cannot be"),
        Scratch(name="thresholds", entries=1, when_full="an array: it cannot be"),
        HostTable(name="file_calls", entries=1024, of="calls_for_files"),
        HostTable(name="tty_majors", entries=512, of="terminal_majors"),
    ),
    derive=derive,
    close=close,
    explain_waits=blocked_time,
    roles=(
        Role("runnable", ("runnable_ms",)),
        Role("blocked", ("blocked_ms", "throttled_ms")),
        Role("throttled", ("throttled_ms",)),
    ),
    checks=(
        SumOf(("voluntary_ms", "involuntary_ms"), "total_ms", "off_cpu"),
        SumOf(("blocked_ms", "runnable_ms", "throttled_ms"), "total_ms", "off_cpu"),
        PartOf("idle_threads_ms", "total_ms"),
    ),
)
