"""Scheduler, interrupts, power.  Kernel side: cpu.c"""

from collections.abc import Mapping
from struct import unpack
from typing import Any

from chainbench_agent.catalog import Counter, Derived, Distribution, Event, Keyed, Module, Names, Scratch, Table
from chainbench_agent.probes.hooks import VECTORS

INTERRUPTS = ("irq_handler_entry", *(f"{vector}_entry" for vector in VECTORS))


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """A group's counters run since it was made; the kernel adds the last period after the last thread has left.

    So the file system's word is the last one, where it has one; of a group that is gone it is the last one seen.
    A group that the target came into during the run counts from what it stood at then.
    """
    seen, met = {}, {}
    for key, value in counts["throttled_groups"].items():
        count, ns, first_count, first_ns, _ = unpack("=QQQQI4x", value)
        group = int.from_bytes(key, "little")
        seen[group], met[group] = (count, ns), (first_count, first_ns)
    before = met | dict(names.throttled_before)
    events = throttled_ns = 0
    for group, (count, ns) in (seen | dict(names.throttled_after)).items():
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
        ),
        Counter(name="context_switches", help="Times a thread left a CPU.", hooks=("task_ran",), per_process=True),
        Counter(
            name="voluntary_switches",
            help="Times a thread left a CPU because it blocked or ended.",
            hooks=("task_ran",),
        ),
        Counter(
            name="involuntary_switches",
            help="Times a thread left a CPU while it could have gone on.",
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
            names="irqs",
            label="device",
        ),
        Table(
            name="vector_interrupts",
            machine_wide=True,
            help="Interrupts that have a vector of their own: timer ticks and calls between CPUs.",
            hooks=INTERRUPTS[1:],
            entries=len(VECTORS),
            names="vectors",
            label="vector",
        ),
        Table(
            name="softirqs",
            machine_wide=True,
            help="Soft interrupts handled, by vector.",
            hooks=("softirq_entry",),
            entries=10,
            names="softirqs",
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
            help="Periods in which a cgroup used up its quota and was throttled; of a target, its own and those above.",
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
            names="cstates",
            label="state",
        ),
    ),
    scratch=(Scratch(name="idle_span", entries=1, when_full="an array: it cannot be"),),
    derive=derive,
)
