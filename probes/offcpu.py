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


def shares(counts: Mapping[str, Any], names: Names) -> dict[int, dict[str, float]]:
    """Wait → function → its part of the time of the sampled blocks; the parts of a wait add up to 1."""
    sampled: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for key, value in counts["sampled_ns"].items():
        wait, stack = unpack("=Ii", key)
        sampled[wait][blocking_function(names.stacks.get(stack, ()))] += int.from_bytes(value, "little")
    return {
        wait: {function: ns / sum(functions.values()) for function, ns in functions.items() if ns}
        for wait, functions in sampled.items()
        if any(functions.values())
    }


def split(wait: int, ns: float, parts: Mapping[int, Mapping[str, float]], names: Names) -> Iterator[dict[str, Any]]:
    """The time of a wait by blocking function: `{reason, syscall, ms}` each."""
    number = wait & ~UNINTERRUPTIBLE
    syscall = "" if number == NO_SYSCALL else names.of("calls", number)
    for function, part in parts.get(wait, {"": 1.0}).items():
        reason = function or (f"blocked in {syscall}" if syscall else "exception")
        yield {"reason": reason, "syscall": syscall, "ms": ns * part / 1e6}


def blocked_reasons(counts: Mapping[str, Any], names: Names) -> Iterator[dict[str, Any]]:
    """Each wait's exact time, split among its functions in proportion to the time of the sampled blocks."""
    parts = shares(counts, names)
    sampled: dict[int, int] = defaultdict(int)
    for key, value in counts["sampled_ns"].items():
        sampled[unpack("=Ii", key)[0]] += int.from_bytes(value, "little")
    for wait, ns in enumerate(counts["blocked_ns"]):
        if ns:
            percent = round(100 * min(sampled[wait] / ns, 1), 1)
            yield from (reason | {"sampled_percent": percent} for reason in split(wait, ns, parts, names))


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    blocked_ms = sum(counts["blocked_ns"]) / 1e6
    woken_ms, preempted_ms = counts["woken_wait_ns"] / 1e6, counts["preempted_wait_ns"] / 1e6
    throttled_ms = counts["throttled_wait_ns"] / 1e6
    reasons = [
        *blocked_reasons(counts, names),
        {"reason": "run queue (woken)", "syscall": "", "ms": woken_ms, "sampled_percent": 100.0},
        {"reason": "run queue (preempted)", "syscall": "", "ms": preempted_ms, "sampled_percent": 100.0},
        {"reason": "throttled", "syscall": "", "ms": throttled_ms, "sampled_percent": 100.0},
    ]
    top = sorted((reason for reason in reasons if reason["ms"]), key=lambda reason: -reason["ms"])[:TOP]
    return {
        "total_ms": blocked_ms + woken_ms + preempted_ms + throttled_ms,
        "voluntary_ms": blocked_ms + woken_ms,
        "involuntary_ms": preempted_ms + throttled_ms,
        "throttled_ms": throttled_ms,
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
            help="Time that user threads spent off the CPUs: blocked, or runnable and waiting for one. "
            "A thread that slept through all of the run is in the ledger only.",
            of=("blocked_ns", "woken_wait_ns", "preempted_wait_ns", "throttled_wait_ns"),
            gauge=True,
            prometheus="chainbench_offcpu_milliseconds_total",
        ),
        Derived(
            name="voluntary_ms",
            help="Off-CPU time that began with the thread blocking, until it ran again, without throttled time.",
            of=("blocked_ns", "woken_wait_ns"),
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
            of=("blocked_ns", "woken_wait_ns", "preempted_wait_ns", "throttled_wait_ns", "sampled_ns"),
            label="reason",
            label_help="The kernel's function that blocked, or else what is known of the wait.",
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
        Counter(
            name="throttled_wait_ns",
            help="Time that user threads could not run: the CPU quota of their cgroup, or of one above, was used up.",
            hooks=("task_throttled",),
            reported=False,
        ),
        Keyed(
            name="by_thread_ns",
            help="Blocked time of a target's threads, by thread and wait.",
            hooks=BLOCKED,
            key="struct offcpu_thread",
            entries=8192,
            when_full="what was used longest ago goes: that blocked time stays whole, but is not told apart by reason",
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
