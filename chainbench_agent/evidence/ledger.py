"""Thread state analysis: where all the time of the target's threads went, and a check that it adds up.

    wall = on_cpu + runnable + blocked (by category and reason) + unexplained

`wall` is taken from births and deaths, the parts from context switches and wake-ups; `unexplained` is what they differ
by, and it is shown.  Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from struct import unpack
from typing import Any

from chainbench_agent.evidence.categories import category_of
from chainbench_agent.evidence.open_intervals import WAIT_UNKNOWN
from chainbench_agent.evidence.sample import Account, Members, OpenInterval, Sample, Sleeper, TaskState, Thread
from chainbench_agent.probes.offcpu import NO_SYSCALL, shares, split
from chainbench_agent.spec import Names

TOP_THREADS = 20
_OPEN = {
    TaskState.RUNNING: "on_cpu_ns",
    TaskState.PREEMPTED: "runnable_ns",
    TaskState.RUNNABLE: "runnable_ns",
    TaskState.BLOCKED: "blocked_ns",
    TaskState.THROTTLED: "throttled_ns",
}


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
        if not sleeper.running:
            whole.named[_reason(sleeper, names)] += lines[sleeper.thread].account.blocked_ns
    parts = shares(offcpu, names)
    top = sorted(lines.items(), key=lambda item: -item[1].account.wall_ns)[:TOP_THREADS]
    shown = [
        {"tid": thread.tid, "pid": thread.pid, "command": thread.command} | _render(line, parts, names)
        for thread, line in top
    ]
    known = last.members.ended_threads - first.members.ended_threads + len(_living(lines, last))
    return _render(whole, parts, names) | {"threads": shown, "threads_not_shown": known - len(shown)}


def _threads(offcpu: Mapping[str, Any], names: Names, first: Sample, last: Sample) -> Iterator[tuple[Thread, Line]]:
    """Every thread that is known singly."""
    waits: dict[tuple[int, int], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for key, value in offcpu["by_thread_ns"].items():
        begin_ns, tid, wait = unpack("=QII", key)
        waits[tid, begin_ns][wait] += int.from_bytes(value, "little")
    for thread, account in last.members.ended_singly.items():
        yield thread, Line(account, waits[thread.tid, thread.begin_ns])
    for task in last.tasks:
        yield task.thread, _open_line(task, waits[task.thread.tid, task.thread.begin_ns], first, last)
    for sleeper in last.members.sleepers:
        yield sleeper.thread, _sleeper_line(sleeper, names, last.at_ns - max(sleeper.thread.begin_ns, first.at_ns))


def _open_line(task: OpenInterval, waits: dict[int, int], first: Sample, last: Sample) -> Line:
    """What the thread's account says, and its present state until the end of the run."""
    ns = max(last.at_ns - max(task.since_ns, first.at_ns), 0)
    until_ns = task.since_ns if task.state == TaskState.FREE else last.at_ns
    wall_ns = max(until_ns - max(task.thread.begin_ns, first.at_ns), 0)
    account = replace(task.account, wall_ns=wall_ns)
    if task.state in _OPEN:
        bucket = _OPEN[task.state]
        account = replace(account, **{bucket: getattr(account, bucket) + ns})
    if task.state == TaskState.BLOCKED:
        waits[NO_SYSCALL if task.wait == WAIT_UNKNOWN else task.wait] += ns
    return Line(account, waits)


def _sleeper_line(sleeper: Sleeper, names: Names, ns: int) -> Line:
    """A thread that made no move was asleep all the time, or on a CPU of its own."""
    if sleeper.running:
        return Line(Account(wall_ns=ns, on_cpu_ns=ns))
    line = Line(Account(wall_ns=ns, blocked_ns=ns))
    line.named[_reason(sleeper, names)] += ns
    return line


def _reason(sleeper: Sleeper, names: Names) -> tuple[str, str]:
    syscall = "" if sleeper.syscall == NO_SYSCALL else names.of("calls", sleeper.syscall)
    return sleeper.function or f"blocked in {syscall or 'the kernel'}", syscall


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
