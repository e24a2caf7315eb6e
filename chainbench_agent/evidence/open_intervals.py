"""Cuts the intervals that were still open when a run ended, and adds them to the counts.

A thread that slept through the end was blocked until the end.  A thread that slept through all of the run counts as
well: whether a thread was woken once must not move a total by the length of the run.  This file finds the open time;
each module decides what it counts as (`Module.close`).  Pure, as all of evidence/.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from chainbench_agent.abi.histogram import NOTHING_OBSERVED
from chainbench_agent.abi.process import Process
from chainbench_agent.catalog import Distribution, IdleThreads, Metric, Module, OpenThread, OpenTime, Table
from chainbench_agent.evidence.sample import OpenInterval, Sample, Sleeper, TaskState
from chainbench_agent.probes import CALLS
from chainbench_agent.probes.wait_key import NO_CALL

WAIT_UNKNOWN = 0xFFFFFFFF
"""CB_WAIT_UNKNOWN of probes/lib/task.h."""

FUTEX_WAIT, FUTEX_LOCK = (1 + list(CALLS).index(kind) for kind in ("FUTEX_WAIT", "FUTEX_LOCK"))
"""CB_CALL_FUTEX_WAIT and CB_CALL_FUTEX_LOCK (see loading/unit_sizes.py)."""

INTERRUPTED = 2 + len(CALLS)
"""CB_CALL_INTERRUPTED: a wait on a futex that a stop has interrupted, and that may continue after it (calls.h)."""

OFF_CPU = (TaskState.PREEMPTED, TaskState.RUNNABLE, TaskState.THROTTLED, TaskState.BLOCKED)

TIME_IN_STATE = {
    TaskState.RUNNING: "on_cpu_ns",
    TaskState.RUNNABLE: "woken_wait_ns",
    TaskState.PREEMPTED: "preempted_wait_ns",
    TaskState.THROTTLED: "throttled_ns",
    TaskState.BLOCKED: "blocked_ns",
}
"""State → the time of an OpenThread that it adds to; in the other states it is not known what the thread did."""

Counts = Mapping[str, Any]


def open_time(first: Sample, last: Sample, *, targeted: bool, idle: IdleThreads | None = None) -> OpenTime:
    """All intervals that were open when the run ended.

    The sleep of kernel threads counts only if they are in a target, as in probes/offcpu.c.
    """
    threads = (thread for _, thread in _threads(first, last, targeted=targeted))
    return OpenTime(first.at_ns, last.at_ns, last.run, tuple(threads), idle)


def closed(module: Module, counts: Counts, open_: OpenTime) -> dict[str, Any]:
    """`counts` (metric → difference) with what was open added."""
    return {**counts, **(module.close(counts, open_) if module.close else {})}


def close_processes(
    first: Sample, last: Sample, modules: Iterable[Module], *, targeted: bool = False
) -> tuple[Process, ...]:
    """The processes of `last`, with what their threads were doing when the run ended.

    A process all of whose threads slept through the run has no record yet; it gets one with the figures of `modules`.
    """
    modules = tuple(modules)
    nothing = {module: _nothing_counted(module) for module in modules if module.close}
    threads: dict[int, list[OpenThread]] = defaultdict(list)
    for pid, thread in _threads(first, last, targeted=targeted):
        threads[pid].append(thread)
    edges = OpenTime(first.at_ns, last.at_ns, last.run)
    return tuple(
        _closed_process(process, nothing, replace(edges, threads=tuple(threads[process.pid])))
        if process.pid in threads
        else process
        for process in (*last.processes, *_without_record(last, modules))
    )


def length_ns(task: OpenInterval, first: Sample, last: Sample) -> int:
    """How much of the interval lies in the run, and in the target."""
    return max((task.until_ns or last.at_ns) - max(task.since_ns, first.at_ns), 0)


def wait_of(task: OpenInterval) -> int:
    """The wait key of a blocked thread."""
    return NO_CALL if task.wait == WAIT_UNKNOWN else task.wait


def waits_on_a_futex(task: OpenInterval) -> bool:
    """Whether the call under way waits; one that takes a lock does only if it is off its CPU: the lock may be free."""
    if task.until_ns:
        return False  # its thread left the target during the call, which then does not count for the target
    return task.call in (FUTEX_WAIT, INTERRUPTED) or (task.call == FUTEX_LOCK and task.state in OFF_CPU)


def futex_ns(task: OpenInterval, first: Sample, last: Sample) -> int | None:
    """The time in a call under way that waits on a futex; None: there is no such call."""
    return max(last.at_ns - max(task.call_since_ns, first.at_ns), 0) if waits_on_a_futex(task) else None


def _threads(first: Sample, last: Sample, *, targeted: bool) -> Iterator[tuple[int, OpenThread]]:
    """The open time of each thread, by process."""
    for task in (*last.tasks, *last.members.cuts):
        yield task.thread.pid, _of_task(task, first, last, targeted=targeted)
    for sleeper in last.members.sleepers:
        yield sleeper.thread.pid, _of_sleeper(sleeper)


def _of_task(task: OpenInterval, first: Sample, last: Sample, *, targeted: bool) -> OpenThread:
    spent = {TIME_IN_STATE[task.state]: length_ns(task, first, last)} if task.state in TIME_IN_STATE else {}
    return OpenThread(
        **spent,
        wait=wait_of(task),
        frames=task.frames,
        futex_ns=futex_ns(task, first, last),
        off_cpu_counts=targeted or not task.kernel_thread,
    )


def _of_sleeper(sleeper: Sleeper) -> OpenThread:
    account = sleeper.account
    return OpenThread(
        on_cpu_ns=account.on_cpu_ns,
        preempted_wait_ns=account.runnable_ns,
        blocked_ns=account.blocked_ns,
        wait=sleeper.wait_key,
        frames=sleeper.stack,
        futex_ns=account.futex_waited_ns if account.futex_waits else None,
    )


def _closed_process(process: Process, nothing: Mapping[Module, Counts], open_: OpenTime) -> Process:
    """Has each module close the process as if `nothing` had been counted, and adds the result to its record."""
    figures = {name: dict(counts) for name, counts in process.figures.items()}
    for module, counts in nothing.items():
        own = figures.get(module.name, {})
        gained = closed(module, counts, open_) if own else {}
        for name in own:
            own[name] += gained[name]
    return replace(process, figures=figures)


def _nothing_counted(module: Module) -> Counts:
    """The counts of a module before anything happened."""
    records = [m.name for m in (*module.keyed, *module.per_disk)] + [r.name for r in module.per_cpu_records]
    return {metric.name: _nothing(metric) for metric in module.per_cpu} | {name: {} for name in records}


def _nothing(metric: Metric) -> Any:
    match metric:
        case Distribution():
            return NOTHING_OBSERVED
        case Table(entries=entries):
            return (0,) * entries
    return 0


def _without_record(last: Sample, modules: Iterable[Module]) -> Iterator[Process]:
    known = {process.pid for process in last.processes}
    commands: dict[int, str] = {}
    for sleeper in last.members.sleepers:
        pid = sleeper.thread.pid
        if pid not in known and (pid not in commands or sleeper.thread.tid == pid):
            commands[pid] = sleeper.thread.command
    none = {module.name: dict.fromkeys((metric.name for metric in module.per_process), 0) for module in modules}
    for pid, command in commands.items():
        yield Process(pid, command, none)
