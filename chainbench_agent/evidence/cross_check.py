"""The same thing as the kernel itself counted it, where it does.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chainbench_agent.evidence.model import CrossCheck, Section
from chainbench_agent.evidence.sample import OpenInterval, Sample, TaskState

READ = "read a moment before the run and after it"

CROSS_CHECKS: Sequence[tuple[str, str, str, str]] = (
    ("cpu.on_cpu_ms", "on_cpu_ms", "/proc/stat", f"kept in steps of 10 ms, with the agent's own time, {READ}"),
    ("cpu.idle_ms", "idle_ms", "/proc/stat", f"kept in steps of 10 ms, {READ}"),
    (
        "cpu.context_switches",
        "context_switches",
        "/proc/stat ctxt",
        f"with the switches away from the idle task, {READ}",
    ),
    (
        "memory.page_allocs",
        "page_allocs",
        "/proc/vmstat pgalloc_*",
        f"with the agent's own pages, and those given in bulk, which no tracepoint shows, {READ}",
    ),
    ("exec.forks", "forks", "/proc/stat processes", f"processes and threads, {READ}"),
)
"""(name, key of Sample.kernel, from, what explains a difference)"""

SCHEDSTAT = {"on_cpu": (TaskState.RUNNING,), "runnable": (TaskState.RUNNABLE, TaskState.PREEMPTED)}
"""Account, in the order of schedstat's fields → the states that go on it."""

ORIGIN = "/proc/PID/task/TID/schedstat"
NOTE = (
    f"of the threads that outlive the run, {READ}; who gets a CPU at once runs, to the kernel, from its wake-up on, "
    "some µs earlier"
)
"""rq_clock_skip_update(): from a wake-up that a switch is to follow until after that, the run queue's clock stands."""
WITH_THROTTLED = "the kernel also counts the {} ms in which a CPU quota did not let them run"


CPU_STAT = "cpu.stat"
OF_GROUPS = (
    "of cgroups, not of threads; the kernel adds it when a cgroup may run again, so up to one period for each CPU of "
    "what began before the run, or did not end in it, is on the other side"
)
MORE_OF_THREADS = "threads have more: where several waited on one CPU, the cgroup has that time once"
MORE_OF_GROUPS = (
    "the cgroups have more: each of those above each other has its own time, other processes are in them too, and "
    "before Linux 6.18 a cgroup is throttled also while none of its threads could run"
)


def counters_check(sections: Mapping[str, Section], first: Sample, last: Sample) -> dict[str, CrossCheck]:
    """For the whole machine: the kernel's own counters, where it keeps any."""
    checks = {}
    for name, key, origin, note in CROSS_CHECKS:
        module, metric = name.split(".")
        ours = sections.get(module, {}).get(metric)
        if ours is None or key not in last.kernel:
            continue
        if isinstance(ours, dict):
            ours = sum(ours.values())
        if name == "exec.forks":
            ours += sections["exec"].get("threads_created", 0)
        theirs = last.kernel[key] - first.kernel[key]
        check = {"ebpf": round(float(ours), 6), "kernel": theirs, "from": origin, "note": note}
        checks[name] = CrossCheck.model_validate(check)
    return checks


def schedstat_check(first: Sample, last: Sample) -> dict[str, CrossCheck]:
    """On-CPU and run-queue time of the target's living threads, as /proc/PID/task/TID/schedstat has them.

    Less those that joined a cgroup: what they had when they did, nobody knows.
    """
    before, after = first.members.schedstat, last.members.schedstat
    joined = last.members.older - before.keys()
    living = [task for task in last.tasks if task.tid in after and task.tid not in joined]
    if not living:
        return {}
    checks = {}
    throttled = sum(_until_the_end(task, "throttled_ns", (TaskState.THROTTLED,), first, last) for task in living)
    for index, (name, states) in enumerate(SCHEDSTAT.items()):
        ours = sum(_until_the_end(task, f"{name}_ns", states, first, last) for task in living)
        theirs = sum(after[t.tid][index] - before.get(t.tid, (0, 0))[index] for t in living)
        check = {"ebpf": round(ours / 1e6, 6), "kernel": round(theirs / 1e6, 6), "from": ORIGIN, "note": NOTE}
        if name == "runnable" and throttled:
            check["note"] = f"{NOTE}; {WITH_THROTTLED.format(round(throttled / 1e6, 6))}"
        checks[f"ledger.{name}_ms"] = CrossCheck.model_validate(check)
    return checks


def throttled_check(sections: Mapping[str, Section]) -> dict[str, CrossCheck]:
    """Throttled time of threads, and of the cgroups whose quotas hold for them; nothing where none was throttled."""
    ours, theirs = (sections.get(module, {}).get("throttled_ms") for module in ("offcpu", "cpu"))
    if ours is None or theirs is None or not (ours or theirs):
        return {}
    note = f"{OF_GROUPS}; {MORE_OF_THREADS if ours > theirs else MORE_OF_GROUPS}" if ours != theirs else OF_GROUPS
    check = {"ebpf": round(float(ours), 6), "kernel": round(float(theirs), 6), "from": CPU_STAT, "note": note}
    return {"offcpu.throttled_ms": CrossCheck.model_validate(check)}


def _until_the_end(task: OpenInterval, bucket: str, states: tuple[TaskState, ...], first: Sample, last: Sample) -> int:
    counted: int = getattr(task.account, bucket)
    return counted + (max(last.at_ns - max(task.since_ns, first.at_ns), 0) if task.state in states else 0)
