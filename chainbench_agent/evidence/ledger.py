"""Thread state analysis: where all the time of the target's threads went, and a check that it adds up.

    wall = on_cpu + runnable + blocked (by category and reason) + unexplained

`wall` is taken from births and deaths, the parts from context switches and wake-ups; `unexplained` is what they differ
by, and it is shown.  Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from struct import unpack
from typing import Any

from chainbench_agent.evidence.categories import category_of
from chainbench_agent.evidence.open_intervals import WAIT_UNKNOWN
from chainbench_agent.evidence.sample import Account, Members, Sample, Sleeper, TaskState, Thread
from chainbench_agent.evidence.threads import accounts, hardly_ran, main_thread_of
from chainbench_agent.probes.offcpu import NO_SYSCALL, reason_of, shares, split
from chainbench_agent.spec import Names

TOP_THREADS = 20


@dataclass(slots=True)
class Line:
    """An account with its blocked time told apart: wait → ns, or (reason, syscall) → ns where that is what is known."""

    account: Account = field(default_factory=Account)
    waits: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    named: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))


def ledger(offcpu: Mapping[str, Any], names: Names, first: Sample, last: Sample) -> dict[str, Any]:
    """The evidence's `ledger`: the target as a whole, and its top threads.  `offcpu`: that module's differences."""
    lines = dict(_threads(offcpu, names, first, last))
    whole = Line(_sum([_ended(first.members, last.members), *(line.account for line in _living(lines, last))]))
    for wait, ns in enumerate(offcpu["blocked_ns"]):
        whole.waits[wait] += ns
    for sleeper in last.members.sleepers:
        if sleeper.account.blocked_ns:
            whole.named[_reason(sleeper, names)] += sleeper.account.blocked_ns
    parts = shares(offcpu, names)
    idle, top = _ranked(lines, first, last)
    shown = [
        {"tid": thread.tid, "pid": thread.pid, "command": thread.command} | _render(line, parts, names)
        for thread, line in top
    ]
    known = last.members.ended_threads - first.members.ended_threads + len(_living(lines, last))
    return _render(whole, parts, names) | {
        "threads": shown,
        "threads_not_shown": known - len(shown),
        "idle_threads": {"threads": len(idle)} | _render(_together(idle), parts, names),
    }


def _ranked(lines: Mapping[Thread, Line], first: Sample, last: Sample) -> tuple[list[Line], list[tuple[Thread, Line]]]:
    """The lines of the threads that hardly ran; and the top threads: the main one, who worked most, who waited most."""
    run_ns, main_thread = last.at_ns - first.at_ns, main_thread_of(last)
    idle = {thread for thread, line in lines.items() if hardly_ran(thread, line.account, main_thread, run_ns)}

    def rank(item: tuple[Thread, Line]) -> tuple[bool, bool, int, int]:
        thread, account = item[0], item[1].account
        work_ns = 0 if thread in idle else account.on_cpu_ns + account.runnable_ns + account.throttled_ns
        return thread.tid == main_thread, thread not in idle, work_ns, account.wall_ns

    top = sorted(lines.items(), key=rank, reverse=True)[:TOP_THREADS]
    return [lines[thread] for thread in idle], top


def _together(lines: Iterable[Line]) -> Line:
    whole = Line()
    for line in lines:
        whole.account = _sum([whole.account, line.account])
        for wait, ns in line.waits.items():
            whole.waits[wait] += ns
        for reason, ns in line.named.items():
            whole.named[reason] += ns
    return whole


def _threads(offcpu: Mapping[str, Any], names: Names, first: Sample, last: Sample) -> Iterator[tuple[Thread, Line]]:
    """Every thread that is known singly."""
    waits: dict[tuple[int, int], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for key, value in offcpu["by_thread_ns"].items():
        begin_ns, tid, wait = unpack("=QII", key)
        waits[tid, begin_ns][wait] += int.from_bytes(value, "little")
    for task in last.tasks:
        if task.state == TaskState.BLOCKED:
            wait = NO_SYSCALL if task.wait == WAIT_UNKNOWN else task.wait
            waits[task.thread.tid, task.thread.begin_ns][wait] += max(last.at_ns - max(task.since_ns, first.at_ns), 0)
    named = {sleeper.thread: _reason(sleeper, names) for sleeper in last.members.sleepers}
    for thread, account in accounts(first, last).items():
        if thread in named:
            yield thread, Line(account, named={named[thread]: account.blocked_ns} if account.blocked_ns else {})
        else:
            yield thread, Line(account, waits[thread.tid, thread.begin_ns])


def _reason(sleeper: Sleeper, names: Names) -> tuple[str, str]:
    reason = reason_of(sleeper.function, sleeper.syscall, names)
    return reason["reason"], reason["syscall"]


def _living(lines: Mapping[Thread, Line], last: Sample) -> list[Line]:
    ended = last.members.ended_singly
    return [line for thread, line in lines.items() if thread not in ended]


_parts = attrgetter(*(part.name for part in fields(Account)))


def _ended(first: Members, last: Members) -> Account:
    return Account(*(b - a for a, b in zip(_parts(first.ended), _parts(last.ended), strict=True)))


def _sum(accounts: Iterable[Account]) -> Account:
    return Account(*map(sum, zip(*map(_parts, accounts), strict=True)))


def _render(line: Line, parts: Mapping[int, Mapping[str, float]], names: Names) -> dict[str, Any]:
    account = line.account
    blocked_ns = account.blocked_ns + account.throttled_ns
    unexplained_ns = account.wall_ns - account.on_cpu_ns - account.runnable_ns - blocked_ns
    reasons = [reason for wait, ns in line.waits.items() if ns for reason in split(wait, ns, parts, names)]
    reasons += [{"reason": why, "syscall": call, "ms": ns / 1e6} for (why, call), ns in line.named.items()]
    if account.throttled_ns:
        reasons.append({"reason": "CPU quota used up", "syscall": "", "ms": account.throttled_ns / 1e6})
    untold_ms = blocked_ns / 1e6 - sum(reason["ms"] for reason in reasons)
    if untold_ms > 0.001:
        reasons.append({"reason": "not told apart", "syscall": "", "ms": untold_ms})
    return {
        "wall_ms": _ms(account.wall_ns),
        "on_cpu_ms": _ms(account.on_cpu_ns),
        "runnable_ms": _ms(account.runnable_ns),
        "blocked_ms": _ms(blocked_ns),
        "unexplained_ms": _ms(unexplained_ns),
        "blocked": _categories(reasons),
    }


def _categories(reasons: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Longest first, and in each the longest reasons first; equal reasons are added up."""
    grouped: dict[str, dict[tuple[str, str], float]] = defaultdict(lambda: defaultdict(float))
    for reason in reasons:
        category = category_of(reason["reason"], reason["syscall"])
        grouped[category][reason["reason"], reason["syscall"]] += reason["ms"]
    return sorted(
        (
            {
                "category": category,
                "ms": round(sum(members.values()), 6),
                "reasons": [
                    {"reason": reason, "syscall": syscall, "ms": round(ms, 6)}
                    for (reason, syscall), ms in sorted(members.items(), key=lambda item: -item[1])
                ],
            }
            for category, members in grouped.items()
        ),
        key=lambda category: -float(category["ms"]),
    )


def _ms(ns: int) -> float:
    return round(ns / 1e6, 6)
