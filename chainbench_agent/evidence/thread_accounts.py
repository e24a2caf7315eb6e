"""The accounts of those threads of a target that are known one by one, and which of them hardly ran.  Pure.

Many processes have threads for something that seldom happens.  Each of these sleeps for as long as the run is, so they
make up most of all waiting, but say nothing about the work: they are counted apart from threads that do work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from chainbench_agent.catalog import IdleThreads
from chainbench_agent.evidence.open_intervals import futex_ns
from chainbench_agent.evidence.sample import Account, OpenInterval, Sample, TaskState, Thread

IDLE_ON_CPU_NS = 1_000_000
IDLE_SHARE = 1000
"""A thread that was there for at least half of the run hardly ran if it was on a CPU for less than a millisecond, or
less than this part of the run.  The main thread of a process tree never counts as such."""

LINE_OF_STATE = {
    TaskState.RUNNING: "on_cpu_ns",
    TaskState.PREEMPTED: "runnable_ns",
    TaskState.RUNNABLE: "runnable_ns",
    TaskState.BLOCKED: "blocked_ns",
    TaskState.THROTTLED: "throttled_ns",
}


def accounts(first: Sample, last: Sample) -> dict[Thread, Account]:
    """Every thread that is recorded one by one, with its account until the end of the run."""
    found = dict(last.members.ended_singly)
    for task in last.tasks:
        found[task.thread] = _until_the_end(task, first, last)
    for sleeper in last.members.sleepers:
        found[sleeper.thread] = sleeper.account
    return found


def _until_the_end(task: OpenInterval, first: Sample, last: Sample) -> Account:
    """The thread's account, and its present state until the end of the run."""
    ns = max(last.at_ns - max(task.since_ns, first.at_ns), 0)
    until_ns = task.since_ns if task.state == TaskState.FREE else last.at_ns
    account = replace(task.account, wall_ns=max(until_ns - max(task.thread.begin_ns, first.at_ns), 0))
    if line := LINE_OF_STATE.get(task.state):
        account = replace(account, **{line: getattr(account, line) + ns})
    if (waited_ns := futex_ns(task, first, last)) is not None:
        futex = account.futex_waits + 1, account.futex_waited_ns + waited_ns
        account = replace(account, futex_waits=futex[0], futex_waited_ns=futex[1])
    return account


def main_thread_of(last: Sample) -> int:
    """The id of the main thread of a process tree; 0 for any other target."""
    return last.members.root


def hardly_ran(thread: Thread, account: Account, main_thread: int, run_ns: int) -> bool:
    """Whether a thread was there for at least half of the run, and did next to nothing; see IDLE_SHARE."""
    return (
        thread.tid != main_thread
        and 2 * account.wall_ns >= run_ns
        and account.on_cpu_ns < max(IDLE_ON_CPU_NS, run_ns // IDLE_SHARE)
    )


def idle_threads(known: Mapping[Thread, Account], first: Sample, last: Sample) -> IdleThreads:
    """The part of the totals that belongs to threads which hardly ran; `known`: as `accounts` has them."""
    run_ns, main_thread = last.at_ns - first.at_ns, main_thread_of(last)
    idle = [account for thread, account in known.items() if hardly_ran(thread, account, main_thread, run_ns)]
    return IdleThreads(
        sum(account.runnable_ns + account.blocked_ns + account.throttled_ns for account in idle),
        sum(account.futex_waits for account in idle),
        sum(account.futex_waited_ns for account in idle),
    )
