"""Compares figures with what the kernel itself counted, where it does.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

from chainbench_agent.catalog import READ_AROUND
from chainbench_agent.evidence import roles
from chainbench_agent.evidence.metric_keys import reported_key
from chainbench_agent.evidence.model import CrossCheck, Section
from chainbench_agent.evidence.sample import OpenInterval, ProcThread, Sample, TaskState
from chainbench_agent.probes import CATALOG

SCHEDSTAT = {"on_cpu": (TaskState.RUNNING,), "runnable": (TaskState.RUNNABLE, TaskState.PREEMPTED)}
"""Account of schedstat → the states whose time it has."""

ORIGIN = "/proc/PID/task/TID/schedstat, and task_struct of threads that died"
NOTE = (
    f"of living threads {READ_AROUND}, of dead ones as they left their last CPU; a wait in the run queue is counted as "
    "a whole when it ends, so it may have begun before the run; a thread that gets a CPU at once runs, to the kernel, "
    "from its wake-up on, some µs earlier: one that sleeps often and briefly has less on-CPU time here than `time` and "
    "getrusage() say, and more in the run queue; the sum is the same"
)
"""rq_clock_skip_update(): from a wake-up that causes a switch until after that, the run queue's clock stands still."""
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
    compared = (
        (module, metric, metric.kernel_counter)
        for module in CATALOG
        for metric in module.reported
        if metric.kernel_counter and metric.kernel_counter.counter in last.kernel
    )
    checks = {}
    for module, metric, theirs in compared:
        section, key = sections.get(module.section_key, {}), reported_key(metric)
        ours = roles.number(section.get(key))
        if ours is None:
            continue
        ours += sum(section.get(figure, 0) for figure in theirs.plus)
        counted = last.kernel[theirs.counter] - first.kernel[theirs.counter]
        check = {"ebpf": round(float(ours), 6), "kernel": counted, "from": theirs.origin, "note": theirs.note}
        checks[f"{module.section_key}.{key}"] = CrossCheck.model_validate(check)
    return checks


def schedstat_check(first: Sample, last: Sample) -> dict[str, CrossCheck]:
    """On-CPU and run-queue time of the target's threads, living and dead, next to the kernel's own account.

    Threads that joined a cgroup during the run are left out: the kernel's account at that moment is not known.
    """
    living = _living(first, last)
    died = last.members.ended_threads > first.members.ended_threads
    if not living and not died:
        return {}
    checks = {}
    throttled_ns = last.members.ended.throttled_ns - first.members.ended.throttled_ns
    throttled_ns += sum(
        _until_the_end(task, "throttled_ns", (TaskState.THROTTLED,), first, last) for task, _, _ in living
    )
    for name, states in SCHEDSTAT.items():
        ours = sum(_until_the_end(task, f"{name}_ns", states, first, last) for task, _, _ in living)
        theirs = sum(
            getattr(after, f"{name}_ns") - (getattr(before, f"{name}_ns") if before else 0)
            for _, before, after in living
        )
        died_ours, died_theirs = _died(f"{name}_ns", first, last)
        checks[f"ledger.{name}_ms"] = CrossCheck.model_validate(
            {
                "ebpf": round((ours + died_ours) / 1e6, 6),
                "kernel": round((theirs + died_theirs) / 1e6, 6),
                "from": ORIGIN,
                "note": _note(name, throttled_ns),
            }
        )
    return checks


def _note(name: str, throttled_ns: int) -> str:
    throttled = name == "runnable" and throttled_ns
    return f"{NOTE}; {WITH_THROTTLED.format(round(throttled_ns / 1e6, 6))}" if throttled else NOTE


def _living(first: Sample, last: Sample) -> list[tuple[OpenInterval, ProcThread | None, ProcThread]]:
    """The living threads with a record, as /proc showed them before the run, if it did, and after it."""
    found = []
    for task in last.tasks:
        before, after = first.members.proc_threads.get(task.tid), last.members.proc_threads.get(task.tid)
        joined = before is None and after is not None and after.born_by_ns <= first.at_ns
        if after and after.on_cpu_ns is not None and not joined and after.born_ns <= last.at_ns:
            found.append((task, before if before and before.on_cpu_ns is not None else None, after))
    return found


def _died(name: str, first: Sample, last: Sample) -> tuple[int, int]:
    """Our account of threads that died, and the kernel's: its last values less those at the beginning of the run."""
    before, after = first.members, last.members
    ours, theirs = (
        getattr(after.last_words, f"{who}_{name}") - getattr(before.last_words, f"{who}_{name}")
        for who in ("checked", "kernel")
    )
    older = (
        (thread for tid, thread in before.proc_threads.items() if tid not in after.proc_threads) if after.root else ()
    )
    return ours, theirs - sum(getattr(thread, name) or 0 for thread in older if not thread.dead)


def throttled_check(sections: Mapping[str, Section]) -> dict[str, CrossCheck]:
    """Throttled time of threads, and of the cgroups whose quotas hold for them; empty if neither has any."""
    ours, theirs = roles.value("throttled", sections), roles.value("throttled_groups", sections)
    if ours is None or theirs is None or not (ours or theirs):
        return {}
    note = f"{OF_GROUPS}; {MORE_OF_THREADS if ours > theirs else MORE_OF_GROUPS}" if ours != theirs else OF_GROUPS
    check = {"ebpf": round(float(ours), 6), "kernel": round(float(theirs), 6), "from": CPU_STAT, "note": note}
    return {roles.key("throttled"): CrossCheck.model_validate(check)}


def _until_the_end(task: OpenInterval, bucket: str, states: tuple[TaskState, ...], first: Sample, last: Sample) -> int:
    counted: int = getattr(task.account, bucket)
    return counted + (max(last.at_ns - max(task.since_ns, first.at_ns), 0) if task.state in states else 0)
