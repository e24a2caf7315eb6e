"""Waiting for locks, of the kernel and of user space, and their order.  Kernel side: locks.c, locks.h, contention.h"""

from collections.abc import Mapping
from typing import Any

from chainbench_agent.catalog import (
    Counter,
    Derived,
    Distribution,
    Event,
    Keyed,
    Metric,
    Module,
    Names,
    OpenTime,
    PartOf,
    Same,
    Scratch,
    Stacks,
)
from chainbench_agent.probes.lock_hooks import HOLD_HOOKS, ORDER_HOOKS
from chainbench_agent.probes.lock_order import LISTED, edges_of, shown, split, stacks_shown, violations
from chainbench_agent.probes.offcpu import NEEDS_TARGET

OPTION = "locks:order"
WAITS = ("futex_wait_ns", "mutex_wait_ns", "rwsem_wait_ns")


def close(counts: Mapping[str, Any], open_time: OpenTime) -> dict[str, Any]:
    """Adds the threads that were in a call that waits on a futex."""
    waits = [thread.futex_ns for thread in open_time.threads if thread.futex_ns is not None]
    idle = open_time.idle
    return {
        "futex_waits": counts["futex_waits"] + len(waits),
        "futex_waited_ns": counts["futex_waited_ns"] + sum(waits),
        "futex_wait_ns": counts["futex_wait_ns"].observe(waits),
        "futex_idle_waits": idle.futex_waits if idle else 0,
        "futex_idle_waited_ns": idle.futex_waited_ns if idle else 0,
    }


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    return _average(counts) | _order(counts, names)


def _order(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    of_users, of_kernel = split(violations(edges_of(counts["edges"])))
    return {
        "lock_order_violations": len(of_users),
        "lock_order_cycles": shown(of_users, names),
        "kernel_lock_order_violations": len(of_kernel),
        "kernel_lock_order_cycles": shown(of_kernel, names),
    }


def _average(counts: Mapping[str, Any]) -> dict[str, Any]:
    """The average waits; absent if there were none."""
    waits = sum(sum(counts[name].slots) for name in WAITS)
    total_ns = sum(counts[name].sum for name in WAITS)
    found = {"avg_wait_time_us": round(total_ns / waits / 1e3, 3)} if waits else {}
    idle_waits, idle_ns = counts.get("futex_idle_waits", 0), counts.get("futex_idle_waited_ns", 0)
    found |= {"futex_idle_waits": idle_waits, "futex_idle_waited_ms": idle_ns / 1e6}
    if waits > idle_waits:
        found["avg_wait_time_without_idle_us"] = round((total_ns - idle_ns) / (waits - idle_waits) / 1e3, 3)
    return found


FUTEX: tuple[Metric, ...] = (
    Counter(
        name="futex_waits",
        help=(
            "System calls that waited on a futex: until woken, until timed out or interrupted by a signal while asleep "
            "(continuing is another call), or, for a lock with priority inheritance, until they had it. Calls that did "
            "not sleep because the lock was free or the time was over, that found the futex changed, or that failed "
            "are not counted. A call in progress when the run begins or ends counts for its part in the run (for a "
            "lock with priority inheritance, at the end only if the run also sees switches). With a target, a thread "
            "that waited during the whole run has made one call."
        ),
        hooks=("call_begins", "call_done"),
        per_process=True,
    ),
    Counter(name="futex_waited_ns", help="Time in these calls.", hooks=("call_done",), per_process=True),
    Distribution(name="futex_wait_ns", help="Time in each of these calls.", hooks=("call_done",)),
    Derived(
        name="futex_idle_waits",
        help="The part of futex_waits that idle threads made: see offcpu.idle_threads_ms.",
        of=("futex_waits",),
        needs_target=NEEDS_TARGET,
    ),
    Derived(
        name="futex_idle_waited_ms",
        help="The part of futex_waited_ms that belongs to idle threads.",
        of=("futex_waited_ns",),
        needs_target=NEEDS_TARGET,
    ),
    Counter(
        name="futex_wakes",
        help="System calls to wake or move threads that wait on a futex, whether or not any waited.",
        hooks=("call_done",),
    ),
)
KERNEL: tuple[Metric, ...] = (
    Counter(
        name="mutex_contentions",
        help="Times a thread had to spin or sleep for a mutex of the kernel, until it had the mutex or gave up.",
        hooks=("mutex_waited",),
        needs="lock_kinds",
        per_process=True,
    ),
    Distribution(
        name="mutex_wait_ns",
        help="Time that a thread spun and slept for a mutex of the kernel.",
        hooks=("mutex_waited",),
        needs="lock_kinds",
    ),
    Counter(
        name="rwsem_waits",
        help=(
            "Times a thread queued for an rwsem of the kernel, without percpu-rwsems. On kernels without "
            "lock:contention_begin (before 5.19) those that got it by spinning count as well."
        ),
        hooks=("rwsem_waited",),
        needs="lock_kinds",
    ),
    Distribution(
        name="rwsem_wait_ns",
        help="Time that a thread waited for an rwsem of the kernel, counted as rwsem_waits.",
        hooks=("rwsem_waited",),
        needs="lock_kinds",
    ),
    Counter(
        name="semaphore_waits",
        help=(
            "Times a thread waited for a semaphore of the kernel, including the kernel's own rt_mutexes, which are "
            "rare and which the tracepoint does not distinguish."
        ),
        hooks=("semaphore_waited",),
        needs="lock_kinds",
    ),
    Counter(
        name="spin_contentions",
        help=(
            "Times a thread queued for a spin lock or a spinning rwlock of the kernel. With a target, waits of "
            "interrupts that interrupt its threads are not counted. If lock:contention_begin is the attach point, the "
            "first waiter is not seen, because it waits without a queue. On kernels without it (before 5.19) the first "
            "waiter counts, and rwlocks do not."
        ),
        hooks=("spin_waited",),
        needs="interrupt_context",
    ),
    Distribution(
        name="spin_wait_ns",
        help="Time that a CPU spun for a lock, counted as spin_contentions.",
        hooks=("spin_waited",),
        needs="interrupt_context",
    ),
    Derived(
        name="avg_wait_time_us",
        help="Mean of all waits in futex_wait_us, mutex_wait_us and rwsem_wait_us; absent without a wait.",
        of=WAITS,
        gauge=True,
    ),
    Derived(
        name="avg_wait_time_without_idle_us",
        help="The same mean without futex_idle_waits: waking an idle thread once does not change it.",
        of=WAITS,
        gauge=True,
        needs_target=NEEDS_TARGET,
    ),
    Counter(
        name="rcu_stalls",
        machine_wide=True,
        help="Warnings of the kernel that an RCU grace period stalled; a stall that continues causes further warnings.",
        hooks=("rcu_stall_warning",),
    ),
)

OF_USERS, OF_KERNEL = (
    tuple(hook.name for hook in ORDER_HOOKS if hook.name.startswith(prefix)) for prefix in ("pthread_", "order_")
)
"""A mutex whose release is not seen seems to be held, so the order is known only where all of these hooks are seen."""

ORDER: tuple[Metric, ...] = (
    Counter(
        name="pthread_mutex_locks",
        help="Times a thread took a pthread mutex, contended or not; with `locks:order` only.",
        hooks=OF_USERS,
    ),
    Counter(
        name="kernel_mutex_locks",
        help=(
            "Times a thread took a mutex of the kernel, contended or not; with `locks:order` only. Uprobes on pthread "
            "functions take one themselves each time."
        ),
        hooks=OF_KERNEL,
    ),
    Keyed(
        name="edges",
        help="Pairs of mutexes, one requested while the other was held, and the thread that did so first.",
        key="struct locks_edge_key",
        value="struct locks_edge",
        entries=8192,
        when_full="what is new is lost",
        option=OPTION,
        reported=False,
    ),
    Derived(
        name="lock_order_violations",
        help=(
            "Ways in which threads that take pthread mutexes in different orders could deadlock, whether or not they "
            "did: cycles of mutexes, each requested by a thread that held the one before, by at least two threads."
        ),
        of=("pthread_mutex_locks", "edges"),
    ),
    Derived(
        name="lock_order_cycles",
        help=f"The first {LISTED} of these: mutexes, threads, and the stack where each mutex was first requested.",
        of=("pthread_mutex_locks", "edges"),
        label="pid",
        label_help="The process that the mutexes are of.",
        value="edges",
    ),
    Derived(
        name="kernel_lock_order_violations",
        help="The same for the kernel's mutexes.",
        of=("kernel_mutex_locks", "edges"),
    ),
    Derived(
        name="kernel_lock_order_cycles",
        help=f"The first {LISTED} of these.",
        of=("kernel_mutex_locks", "edges"),
        label="pid",
        label_help="Never there: the mutexes are of no process.",
        value="edges",
    ),
)

HOLD: tuple[Metric, ...] = (
    Distribution(
        name="spin_hold_ns",
        help=(
            "Time from taking a spin lock of the kernel to releasing it, including the time of the program that sees "
            "the lock taken; with `locks:hold` only. With a target, locks of interrupts that interrupt its threads are "
            "not counted. Locks that were held when the run began or ended are left out."
        ),
        hooks=tuple(hook.name for hook in HOLD_HOOKS),
        needs="interrupt_context",
        sampled=True,
    ),
)

MODULE = Module(
    name="locks",
    question="What waited for locks, in the kernel and in user space?",
    events=(
        Event(name="rcu_stall", help="A CPU has delayed RCU for so long that the kernel warned."),
        Event(
            name="order_violation",
            help=(
                "Two threads take two mutexes in two orders; with locks:order only. Larger cycles are only in the "
                "evidence."
            ),
            value="mutex_address",
        ),
        Event(name="kernel_order_violation", help="The same for the kernel's mutexes.", value="mutex_address"),
    ),
    metrics=(*FUTEX, *KERNEL, *ORDER, *HOLD),
    scratch=(
        Scratch(name="holders", entries=8192, when_full="what the thread holds is not known: lost", option=OPTION),
        Scratch(name="lives", entries=16384, when_full="no edge is made: lost", option=OPTION),
        Stacks(
            name="stacks",
            entries=2048,
            when_full="the edge has no stack, or only its caller",
            option=OPTION,
            depth=64,
            needed=lambda counts: stacks_shown(counts["edges"]),
        ),
        Scratch(name="spins", entries=1, when_full="the oldest is lost"),
    ),
    options=("order", "hold"),
    derive=derive,
    close=close,
    checks=(
        Same("futex_waits", "futex_wait_us"),
        Same("futex_waited_ms", "futex_wait_us", "sum_us"),
        Same("mutex_contentions", "mutex_wait_us"),
        Same("rwsem_waits", "rwsem_wait_us"),
        PartOf("futex_idle_waited_ms", "futex_waited_ms"),
        PartOf("futex_idle_waits", "futex_waits"),
    ),
)
