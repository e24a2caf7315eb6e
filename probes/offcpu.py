"""Time off the CPUs, and why.  Kernel side: offcpu.c"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from struct import unpack
from typing import Any

from chainbench_agent.spec import Counter, Derived, Keyed, Module, Names, Scratch, Table

BLOCKED = ("task_blocks", "task_blocked")

WAITS = 1024
"""A wait is a system call (511: none, an exception) and whether a signal may end it (512 is set if not)."""

NO_SYSCALL = 511
UNINTERRUPTIBLE = 512
TOP = 20

WRAPPERS = ("schedule", "__schedule", "preempt_schedule", "__traceiter_", "__bpf_trace", "bpf_")
"""Functions that only lead to the scheduler: the first one below them is what the thread blocked in."""


def blocking_function(stack: tuple[str, ...]) -> str:
    """The function that called the scheduler: `futex_wait_queue`, `io_schedule`, `do_nanosleep`, …"""
    switched = max((i for i, name in enumerate(stack) if name in ("schedule", "__schedule")), default=-1)
    return next((name for name in stack[switched + 1 :] if not name.startswith(WRAPPERS)), "")


def _blocked(counts: Mapping[str, Any], names: Names) -> Iterator[dict[str, Any]]:
    """Each wait's exact time, split among its functions in proportion to the time of the sampled blocks."""
    sampled: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for key, value in counts["sampled_ns"].items():
        wait, stack = unpack("=Ii", key)
        sampled[wait][blocking_function(names.stacks.get(stack, ()))] += int.from_bytes(value, "little")
    for wait, ns in enumerate(counts["blocked_ns"]):
        if not ns:
            continue
        number = wait & ~UNINTERRUPTIBLE
        syscall = "" if number == NO_SYSCALL else names.of("calls", number)
        functions = {function: part for function, part in sampled[wait].items() if part} or {"": 1}
        whole = sum(functions.values())
        for function, part in functions.items():
            yield {
                "reason": function or (f"blocked in {syscall}" if syscall else "exception"),
                "syscall": syscall,
                "ms": ns * part / whole / 1e6,
                "sampled_percent": round(100 * min(sampled_ns_of(sampled, wait) / ns, 1), 1),
            }


def sampled_ns_of(sampled: Mapping[int, Mapping[str, int]], wait: int) -> int:
    return sum(sampled.get(wait, {}).values())


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    blocked_ms = sum(counts["blocked_ns"]) / 1e6
    woken_ms, preempted_ms = counts["woken_wait_ns"] / 1e6, counts["preempted_wait_ns"] / 1e6
    reasons = [
        *_blocked(counts, names),
        {"reason": "run queue (woken)", "syscall": "", "ms": woken_ms, "sampled_percent": 100.0},
        {"reason": "run queue (preempted)", "syscall": "", "ms": preempted_ms, "sampled_percent": 100.0},
    ]
    top = sorted((reason for reason in reasons if reason["ms"]), key=lambda reason: -reason["ms"])[:TOP]
    return {
        "total_ms": blocked_ms + woken_ms + preempted_ms,
        "voluntary_ms": blocked_ms + woken_ms,
        "involuntary_ms": preempted_ms,
        "blocked_ms": blocked_ms,
        "runnable_ms": woken_ms + preempted_ms,
        "blocks": sum(counts["block_counts"]),
        "top_reasons": [reason | {"ms": round(reason["ms"], 3)} for reason in top],
    }


MODULE = Module(
    name="offcpu",
    question="What did the threads wait for?",
    metrics=(
        Derived(
            name="total_ms",
            help="Time that user threads spent off the CPUs: blocked, or runnable and waiting for one.",
            of=("blocked_ns", "woken_wait_ns", "preempted_wait_ns"),
            gauge=True,
            prometheus="chainbench_offcpu_milliseconds_total",
        ),
        Derived(
            name="voluntary_ms",
            help="Off-CPU time that began with the thread blocking, until it ran again.",
            of=("blocked_ns", "woken_wait_ns"),
        ),
        Derived(
            name="involuntary_ms",
            help="Off-CPU time that began with the thread losing its CPU to another.",
            of=("preempted_wait_ns",),
        ),
        Derived(name="blocked_ms", help="Time that user threads were asleep.", of=("blocked_ns",)),
        Derived(
            name="runnable_ms",
            help="Time that user threads waited on a run queue.",
            of=("woken_wait_ns", "preempted_wait_ns"),
        ),
        Derived(name="blocks", help="Times that user threads fell asleep.", of=("block_counts",)),
        Derived(
            name="top_reasons",
            help=(
                f"The {TOP} longest reasons. Time is exact by system call; where one system call blocks in several "
                "functions, it is split between them by the blocks whose stack was taken (`sampled_percent`)."
            ),
            of=("blocked_ns", "woken_wait_ns", "preempted_wait_ns", "sampled_ns"),
            label="reason",
            value="ms",
            gauge=True,
            prometheus="chainbench_offcpu_reason_seconds",
        ),
        Table(
            name="blocked_ns",
            help="Time that user threads were blocked, by wait.",
            hooks=BLOCKED,
            entries=WAITS,
            names="waits",
            label="wait",
            reported=False,
        ),
        Table(
            name="block_counts",
            help="Times that user threads blocked, by wait.",
            hooks=BLOCKED,
            entries=WAITS,
            names="waits",
            label="wait",
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
        Keyed(
            name="sampled_ns",
            help="Blocked time of the blocks whose stack was taken, by wait and stack.",
            hooks=BLOCKED,
            key="struct offcpu_stack",
            entries=4096,
            when_full="the block keeps its system call, loses its function, and is counted as lost",
            reported=False,
        ),
    ),
    scratch=(
        Scratch(name="nth_in_run", entries=WAITS, when_full="an array: it cannot be", field=True),
        Scratch(name="stacks", entries=2048, when_full="as sampled_ns; such blocks have no function"),
    ),
    derive=derive,
)
