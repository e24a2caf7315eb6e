"""What was still going on when the run ended: cut there, and added to what it was.

A thread that slept through the end was blocked until the end.  A thread that slept through all of the run counts as
well: whether a thread was woken once must not move a total by the length of the run.  Pure, as all of evidence/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from chainbench_agent.abi.histogram import slot_of
from chainbench_agent.abi.process import Process
from chainbench_agent.catalog import Module
from chainbench_agent.evidence.sample import Account, HistogramCounts, OpenInterval, Sample, Sleeper, TaskState
from chainbench_agent.probes import CALLS
from chainbench_agent.probes.offcpu import NO_SYSCALL

WAIT_UNKNOWN = 0xFFFFFFFF
"""CB_WAIT_UNKNOWN of probes/task.h."""

FUTEX_WAIT, FUTEX_LOCK = (1 + list(CALLS).index(kind) for kind in ("FUTEX_WAIT", "FUTEX_LOCK"))
"""CB_CALL_FUTEX_WAIT and CB_CALL_FUTEX_LOCK (see loading/unit_text.py)."""

INTERRUPTED = 2 + len(CALLS)
"""CB_CALL_INTERRUPTED: such a wait that a stop has interrupted, and that goes on when the stop does (calls.h)."""

OFF_CPU = (TaskState.PREEMPTED, TaskState.RUNNABLE, TaskState.THROTTLED, TaskState.BLOCKED)


def close_intervals(
    counts: Mapping[str, Mapping[str, Any]], first: Sample, last: Sample, *, kernel_threads: bool = False
) -> dict[str, dict[str, Any]]:
    """`counts` (module → metric → difference) with the open intervals of `last` added.

    The sleep of kernel threads counts only if they are what is asked about: as in probes/offcpu.c.
    """
    closed = {module: dict(metrics) for module, metrics in counts.items()}
    for task in (*last.tasks, *last.members.cuts):
        ns = length_ns(task, first, last)
        if task.state == TaskState.RUNNING and "cpu" in closed:
            closed["cpu"]["on_cpu_ns"] += ns
        if "offcpu" in closed and (kernel_threads or not task.kernel_thread):
            _off_cpu(closed["offcpu"], task, ns)
        if "locks" in closed and waits_on_a_futex(task):
            _futex_wait(closed["locks"], _span(task.call_since_ns, first, last))
    for sleeper in last.members.sleepers:
        _add_sleeper(closed, sleeper)
    if "cpu" in closed:
        idle = list(closed["cpu"]["idle_ns"])
        for cpu in last.idle:
            idle[min(cpu.state, len(idle) - 1)] += _span(cpu.since_ns, first, last)
        closed["cpu"]["idle_ns"] = tuple(idle)
    return closed


def close_processes(
    first: Sample, last: Sample, modules: Iterable[Module] = (), *, kernel_threads: bool = False
) -> tuple[Process, ...]:
    """The processes of `last`, with what their threads were doing when the run ended.

    A process all of whose threads slept through the run has no record yet; it gets one of `modules`.
    """
    last = replace(last, processes=(*last.processes, *_without_record(last, modules)))
    tasks = (*last.tasks, *last.members.cuts)
    alive = {task.thread.pid for task in tasks} | {sleeper.thread.pid for sleeper in last.members.sleepers}
    figures = {
        process.pid: {module: dict(metrics) for module, metrics in process.figures.items()}
        for process in last.processes
        if process.pid in alive
    }
    for task in tasks:
        own = figures.get(task.thread.pid, {})
        ns = length_ns(task, first, last)
        if task.state == TaskState.RUNNING and "cpu" in own:
            own["cpu"]["on_cpu_ns"] += ns
        if task.state in OFF_CPU and "offcpu" in own and (kernel_threads or not task.kernel_thread):
            own["offcpu"]["off_cpu_ns"] += ns
        if waits_on_a_futex(task) and "locks" in own:
            own["locks"]["futex_waits"] += 1
            own["locks"]["futex_waited_ns"] += _span(task.call_since_ns, first, last)
    for sleeper in last.members.sleepers:
        _add_to_process(figures.get(sleeper.thread.pid, {}), sleeper.account)
    return tuple(
        replace(process, figures=figures[process.pid]) if process.pid in figures else process
        for process in last.processes
    )


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


def _add_sleeper(closed: Mapping[str, dict[str, Any]], sleeper: Sleeper) -> None:
    account = sleeper.account
    if "cpu" in closed:
        closed["cpu"]["on_cpu_ns"] += account.on_cpu_ns
    if "offcpu" in closed:
        offcpu = closed["offcpu"]
        offcpu["off_cpu_ns"] += account.runnable_ns + account.blocked_ns
        offcpu["preempted_wait_ns"] += account.runnable_ns
        if account.blocked_ns:
            offcpu["asleep_ns"] += account.blocked_ns
            waits, key = offcpu.setdefault("open_waits", {}), (sleeper.wait_key, sleeper.stack)
            waits[key] = waits.get(key, 0) + account.blocked_ns
    if "locks" in closed and account.futex_waits:
        _futex_wait(closed["locks"], account.futex_waited_ns)


def _add_to_process(own: Mapping[str, dict[str, int]], account: Account) -> None:
    if "cpu" in own:
        own["cpu"]["on_cpu_ns"] += account.on_cpu_ns
    if "offcpu" in own:
        own["offcpu"]["off_cpu_ns"] += account.runnable_ns + account.blocked_ns
    if "locks" in own:
        own["locks"]["futex_waits"] += account.futex_waits
        own["locks"]["futex_waited_ns"] += account.futex_waited_ns


def length_ns(task: OpenInterval, first: Sample, last: Sample) -> int:
    """How much of the interval lies in the run, and in the target."""
    return max((task.until_ns or last.at_ns) - max(task.since_ns, first.at_ns), 0)


def _span(since_ns: int, first: Sample, last: Sample) -> int:
    return max(last.at_ns - max(since_ns, first.at_ns), 0)


def waits_on_a_futex(task: OpenInterval) -> bool:
    """Whether the call under way waits; one that takes a lock may have it at once, so only if it is off its CPU."""
    if task.until_ns:
        return False  # a call that is under way when its thread leaves is none of the target's
    return task.call in (FUTEX_WAIT, INTERRUPTED) or (task.call == FUTEX_LOCK and task.state in OFF_CPU)


def _futex_wait(locks: dict[str, Any], ns: int) -> None:
    locks["futex_waits"] += 1
    locks["futex_waited_ns"] += ns
    locks["futex_wait_ns"] = _observed(locks["futex_wait_ns"], ns)


def _observed(seen: HistogramCounts, ns: int) -> HistogramCounts:
    """With one more value: as cb_observe() of probes/common.h."""
    slots = list(seen.slots)
    slots[slot_of(ns)] += 1
    least, most = (bound(ns, ns if kept is None else kept) for bound, kept in ((min, seen.min), (max, seen.max)))
    return HistogramCounts(tuple(slots), seen.sum + ns, least, most)


def _off_cpu(offcpu: dict[str, Any], task: OpenInterval, ns: int) -> None:
    if task.state in OFF_CPU:
        offcpu["off_cpu_ns"] += ns
    if task.state == TaskState.PREEMPTED:
        offcpu["preempted_wait_ns"] += ns
    elif task.state == TaskState.RUNNABLE:
        offcpu["woken_wait_ns"] += ns
    elif task.state == TaskState.THROTTLED:
        offcpu["throttled_wait_ns"] += ns
    elif task.state == TaskState.BLOCKED:
        offcpu["asleep_ns"] += ns
        waits = offcpu.setdefault("open_waits", {})
        key = NO_SYSCALL if task.wait == WAIT_UNKNOWN else task.wait, task.frames
        waits[key] = waits.get(key, 0) + ns
