"""Accounts for threads that no hook saw at work, by what /proc showed before the run and after it.

A thread that no hook saw was asleep, on a CPU, or in a run queue from the beginning of the run to its end.  /proc is
read a moment before the beginning and a moment after the end, and what the thread did in these moments must not count.
So each amount is known between two bounds.  If they leave only one case, that is recorded; if they leave several, the
least amount of each is, and the rest is unexplained.  Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from chainbench_agent.evidence.sample import Account, Members, ProcThread, Sample, Sleeper

TICK_NS = 10_000_000
"""The kernel brings the account of a running thread up to date at each of its ticks, at 100 Hz or more."""


class Amount(NamedTuple):
    """A time in the run, of which two bounds are known."""

    least_ns: int
    most_ns: int


def with_accounts(first: Sample, last: Sample) -> Sample:
    """`last` with the accounts of its sleepers, without those that had no part in the run."""
    booked = (_booked(sleeper, first, last) for sleeper in last.members.sleepers)
    return replace(last, members=replace(last.members, sleepers=tuple(sleeper for sleeper in booked if sleeper)))


def uncounted_processes(members: Members) -> int:
    """The processes of the target that no hook counted: those it began with, or whose threads all made no move."""
    return members.seeds or len({sleeper.thread.pid for sleeper in members.sleepers} - members.enrolled)


def _booked(sleeper: Sleeper, first: Sample, last: Sample) -> Sleeper | None:
    """The sleeper with its account; None if it had no part: it was born after the run, or dead before it."""
    now, before = sleeper.proc, first.members.proc_threads.get(sleeper.thread.tid)
    begin_ns = max(sleeper.thread.begin_ns, first.at_ns)
    end_ns = sleeper.until_ns or last.at_ns
    if now.born_ns >= first.at_ns or before is None:
        if now.born_by_ns > end_ns:
            return None  # a thread that is born in the run is seen when it is woken for the first time
        begin_ns = max(begin_ns, now.born_by_ns)
        before = None if now.born_ns < first.at_ns else _at_birth(now)
    if now.dead and (before is None or before.dead):
        return None
    thread = replace(sleeper.thread, begin_ns=begin_ns) if begin_ns > first.at_ns else sleeper.thread
    account = _account(now, before, begin_ns, end_ns)
    if sleeper.has_quota:
        account = replace(account, runnable_ns=0)  # or it was throttled: which of the two is not known
    if sleeper.in_futex and account.blocked_ns:
        account = replace(account, futex_waits=1, futex_waited_ns=account.blocked_ns)
    return replace(sleeper, thread=thread, account=account)


def _at_birth(thread: ProcThread) -> ProcThread:
    """A thread without a record of its own (`loss.task_collisions`), as it was at its birth."""
    at_birth = replace(thread, at_ns=thread.born_by_ns, state="R", arrivals=0, runnable_ns=0)
    return replace(at_birth, on_cpu_ns=None if thread.on_cpu_ns is None else 0)


def _account(now: ProcThread, before: ProcThread | None, begin_ns: int, end_ns: int) -> Account:
    wall_ns = max(end_ns - begin_ns, 0)
    if before is None or now.on_cpu_ns is None or before.on_cpu_ns is None:
        return Account(wall_ns, blocked_ns=wall_ns if now.asleep else 0)
    outside_ns = max(begin_ns - before.at_ns, 0) + max(now.at_ns - end_ns, 0)
    ran_ns, waited_ns = now.on_cpu_ns - before.on_cpu_ns, now.runnable_ns - before.runnable_ns
    on_cpu = Amount(max(ran_ns - outside_ns, 0), min(ran_ns + TICK_NS, wall_ns))
    runnable = Amount(max(waited_ns - outside_ns, 0), min(waited_ns, wall_ns))
    if on_cpu.least_ns and on_cpu.most_ns == wall_ns:
        return Account(wall_ns, on_cpu_ns=wall_ns)
    if now.arrivals == before.arrivals:
        return _not_moved(now, before, on_cpu, wall_ns)
    return _moved(now, on_cpu, runnable, wall_ns)


def _moved(now: ProcThread, on_cpu: Amount, runnable: Amount, wall_ns: int) -> Account:
    """The account of a thread that was put on a CPU: no hook saw it, so that was before the run or after it."""
    if runnable.least_ns and runnable.most_ns == wall_ns:
        return Account(wall_ns, runnable_ns=wall_ns)
    account = Account(wall_ns, on_cpu.least_ns, runnable.least_ns)
    if now.state == "R" or wall_ns in {on_cpu.most_ns, runnable.most_ns}:
        return account  # it may have been woken before the end or after it; or the run was too short to know
    if not on_cpu.least_ns and not runnable.least_ns:
        return Account(wall_ns, blocked_ns=wall_ns)
    return replace(account, blocked_ns=max(wall_ns - on_cpu.most_ns - runnable.most_ns, 0))


def _not_moved(now: ProcThread, before: ProcThread, on_cpu: Amount, wall_ns: int) -> Account:
    """The account of a thread that was put on no CPU since before the run; once off its CPU, it stayed in one state.

    Its time on a CPU is the whole run or, if it left the CPU unseen, the first part of the run.
    """
    on_cpu_ns = on_cpu.least_ns
    rest_ns = wall_ns - (on_cpu.most_ns if on_cpu_ns or on_cpu.most_ns == wall_ns else 0)
    if now.asleep and before.asleep:
        return Account(wall_ns, blocked_ns=wall_ns)
    if now.asleep:
        return Account(wall_ns, on_cpu_ns, blocked_ns=rest_ns)
    if now.state == before.state == "R":
        return Account(wall_ns, on_cpu_ns, runnable_ns=rest_ns)
    return Account(wall_ns, on_cpu_ns)
