"""Scheduler, interrupts, power.  Kernel side: cpu.c"""

from collections.abc import Iterable, Mapping
from struct import unpack
from typing import Any

from chainbench_agent.abi.c_struct import CStruct
from chainbench_agent.catalog import (
    READ_AROUND,
    Counter,
    Derived,
    Distribution,
    Event,
    FixedNames,
    HostNames,
    KernelCounter,
    Keyed,
    Module,
    Names,
    OpenTime,
    PerCpu,
    Role,
    SumOf,
    Table,
)
from chainbench_agent.probes.hooks import VECTORS

TICKS = "counted in steps of 10 ms"
INTERRUPTS = ("irq_handler_entry", *(f"{vector}_entry" for vector in VECTORS))

IDLE_SPAN = CStruct(since_ns="Q", state="I", run="I")  # struct cpu_idle_span
NOT_IDLE = 0xFFFFFFFF  # CPU_NOT_IDLE

Throttled = dict[int, tuple[int, int]]
"""Cgroup id → (nr_throttled, throttled_ns)."""


def close(counts: Mapping[str, Any], open_time: OpenTime) -> dict[str, Any]:
    """Adds threads that were on a CPU, and CPUs that were idle: idle states beyond the table are in its last entry."""
    idle = list(counts["idle_ns"])
    for record in counts["idle_span"].values():
        since_ns, state, run = IDLE_SPAN.unpack(record)
        if run == open_time.run and state != NOT_IDLE:
            idle[min(state, len(idle) - 1)] += open_time.span_ns(since_ns)
    on_cpu_ns = sum(thread.on_cpu_ns for thread in open_time.threads)
    return {"on_cpu_ns": counts["on_cpu_ns"] + on_cpu_ns, "idle_ns": tuple(idle)}


def throttled_between(names: Names, seen: Iterable[int]) -> tuple[Throttled, Throttled]:
    """The counters of the cgroups whose quotas hold for the target, when the run began and when it ended.

    `seen`: the cgroups in which the kernel side saw a thread.  A cgroup that the target entered later has no counters
    for the beginning here: the kernel side recorded them at that moment.
    """
    if names.quotas_before is None or names.quotas_after is None:
        after, known = dict(names.throttled_after), {*names.throttled_after, *seen}
    else:
        own = names.quotas_before.union(names.quotas_after, seen)
        after = {group: stands for group, stands in names.throttled_after.items() if group in own}
        known = {*names.quotas_before, *names.quotas_after.difference(seen)}
    return {group: names.throttled_before.get(group, (0, 0)) for group in known}, after


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """Throttled time of cgroups: the growth of their counters, which run since the cgroups were created.

    The kernel adds the last period after the last thread has left, so the counters are read from the file system at the
    end; for a cgroup that has been removed, the last values that were seen count.  A cgroup that the target entered
    during the run counts from its values at that moment.
    """
    seen, met = {}, {}
    for key, value in counts["throttled_groups"].items():
        count, ns, first_count, first_ns, _ = unpack("=QQQQI4x", value)
        group = int.from_bytes(key, "little")
        seen[group], met[group] = (count, ns), (first_count, first_ns)
    first, last = throttled_between(names, seen)
    before = met | first
    events = throttled_ns = 0
    for group, (count, ns) in (seen | last).items():
        before_count, before_ns = before.get(group, (0, 0))
        events += count - before_count
        throttled_ns += ns - before_ns
    return {"throttle_events": events, "throttled_ms": throttled_ns / 1e6}


MODULE = Module(
    name="cpu",
    question="What did the scheduler and the interrupts do to the workload?",
    events=(
        Event(
            name="throttled", help="The quota of this process's cgroup, or of one above, was used up.", value="times"
        ),
    ),
    metrics=(
        Counter(
            name="on_cpu_ns",
            help="Time that threads ran on a CPU.",
            hooks=("task_ran", "task_cut"),
            per_process=True,
            kernel_counter=KernelCounter(
                "on_cpu_ms", "/proc/stat", f"{TICKS}, with the agent's own time, {READ_AROUND}"
            ),
        ),
        Counter(
            name="context_switches",
            help="Times a thread left a CPU.",
            hooks=("task_ran",),
            per_process=True,
            each_of=("sched_switch",),
            kernel_counter=KernelCounter(
                "context_switches", "/proc/stat ctxt", f"with the switches away from the idle task, {READ_AROUND}"
            ),
        ),
        Counter(
            name="voluntary_switches",
            help="Times a thread left a CPU because it blocked or ended.",
            hooks=("task_ran",),
        ),
        Counter(
            name="involuntary_switches",
            help="Times a thread left a CPU although it was able to continue.",
            hooks=("task_ran",),
        ),
        Counter(
            name="cpu_migrations",
            help="Times a thread was moved to another CPU.",
            hooks=("sched_migrate_task",),
        ),
        Distribution(
            name="wakeup_latency_ns",
            help="Time from a thread's wake-up (or creation) to its running, without the time that it was throttled.",
            hooks=("task_waited",),
        ),
        Counter(name="interrupts", machine_wide=True, help="Hardware interrupts handled.", hooks=INTERRUPTS),
        Table(
            name="device_interrupts",
            machine_wide=True,
            help="Interrupts by device (every handler of a shared line counts).",
            hooks=("irq_handler_entry",),
            entries=1024,  # the last one also takes all higher interrupt numbers
            names=HostNames("irqs"),
            label="device",
        ),
        Table(
            name="vector_interrupts",
            machine_wide=True,
            help="Interrupts with their own vector: timer ticks and calls between CPUs.",
            hooks=INTERRUPTS[1:],
            entries=len(VECTORS),
            names=FixedNames(VECTORS),
            label="vector",
        ),
        Table(
            name="softirqs",
            machine_wide=True,
            help="Soft interrupts handled, by vector.",
            hooks=("softirq_entry",),
            entries=10,
            names=HostNames("softirqs"),
            label="vector",
        ),
        Keyed(
            name="throttled_groups",
            help="CFS bandwidth control: throttle events and throttled time, by cgroup, now and when first seen.",
            hooks=("task_ran",),
            needs="cfs_bandwidth",
            key="u64",
            value="struct cpu_bandwidth",
            entries=4096,
            when_full="a further limited cgroup is not read, and counted as lost",
            reported=False,
        ),
        Derived(
            name="throttle_events",
            help=(
                "Periods in which a cgroup used up its quota and was throttled; with a target, the cgroups of its "
                "processes and those above."
            ),
            of=("throttled_groups",),
        ),
        Derived(
            name="throttled_ms",
            help="Time that these cgroups were throttled, added up over the CPUs: their cpu.stat's `throttled_usec`.",
            of=("throttled_groups",),
        ),
        Counter(
            name="frequency_changes",
            machine_wide=True,
            help="CPU frequency changes made by a cpufreq governor.",
            hooks=("cpu_frequency",),
            needs="cpufreq_governor",
        ),
        Table(
            name="idle_ns",
            machine_wide=True,
            help="Time that CPUs were idle, by C-state.",
            hooks=("cpu_idle",),
            entries=16,  # the last one: idle since before the run, in a state nobody saw
            names=HostNames("cstates"),
            label="state",
            kernel_counter=KernelCounter("idle_ms", "/proc/stat", f"{TICKS}, {READ_AROUND}"),
        ),
    ),
    scratch=(PerCpu(name="idle_span", value="struct cpu_idle_span"),),
    derive=derive,
    close=close,
    roles=(
        Role("on_cpu", ("on_cpu_ms",)),
        Role("idle", ("idle_ms",)),
        Role("throttled_groups", ("throttled_ms",)),
    ),
    checks=(SumOf(("voluntary_switches", "involuntary_switches"), "context_switches", "switches", "switches"),),
)
