"""Thread state analysis: where all the time of the target's threads went, and a check that it adds up.

    wall = on_cpu + runnable + blocked (by category and reason) + unexplained

`wall` is taken from births and deaths, the parts from context switches and wake-ups; `unexplained` is the
difference, which is shown.  Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

from chainbench_agent.catalog import BlockedTime, Names, Waits, WaitStacks
from chainbench_agent.evidence.open_intervals import length_ns, wait_of
from chainbench_agent.evidence.sample import Account, Members, Sample, TaskState, Thread
from chainbench_agent.evidence.thread_accounts import accounts, hardly_ran, main_thread_of
from chainbench_agent.probes.wait_reasons import Part, exact_part, merged, split

TOP_THREADS = 20
TOP_WAITING = 5
"""So many of them are listed because they were there longest, however little they worked."""


@dataclass(slots=True)
class Line:
    """An account, and the waits that its blocked time consists of."""

    account: Account = field(default_factory=Account)
    waits: Waits = field(default_factory=Waits)


def ledger(blocked: BlockedTime, names: Names, first: Sample, last: Sample) -> dict[str, Any]:
    """The evidence's `ledger`: the target as a whole, and its top threads."""
    lines = _threads(blocked, first, last)
    accounts_ = [_ended(first.members, last.members), *(line.account for line in _living(lines, last))]
    whole = Line(_sum(accounts_), blocked.whole)
    idle, top = _ranked(lines, first, last)
    shown = [
        {"tid": thread.tid, "pid": thread.pid, "command": thread.command} | _render(line, names, whole.waits.stacks)
        for thread, line in top
    ]
    known = last.members.ended_threads - first.members.ended_threads + len(_living(lines, last))
    return _render(whole, names) | {
        "threads": shown,
        "threads_not_shown": known - len(shown),
        "idle_threads": {"threads": len(idle)} | _render(_together(idle), names, whole.waits.stacks),
    }


def _ranked(lines: Mapping[Thread, Line], first: Sample, last: Sample) -> tuple[list[Line], list[tuple[Thread, Line]]]:
    """The lines of the threads that hardly ran; and the top threads: the main one, then by work, then by waiting."""
    run_ns, main_thread = last.at_ns - first.at_ns, main_thread_of(last)
    idle = {thread for thread, line in lines.items() if hardly_ran(thread, line.account, main_thread, run_ns)}

    def rank(item: tuple[Thread, Line]) -> tuple[bool, bool, int, int]:
        thread, account = item[0], item[1].account
        work_ns = 0 if thread in idle else account.on_cpu_ns + account.runnable_ns + account.throttled_ns
        return thread.tid == main_thread, thread not in idle, work_ns, account.wall_ns

    def there(item: tuple[Thread, Line]) -> tuple[bool, int]:
        return item[0] not in idle, item[1].account.wall_ns

    ranked = sorted(lines.items(), key=rank, reverse=True)
    busiest, others = ranked[: TOP_THREADS - TOP_WAITING], ranked[TOP_THREADS - TOP_WAITING :]
    return [lines[thread] for thread in idle], busiest + sorted(others, key=there, reverse=True)[:TOP_WAITING]


def _together(lines: Iterable[Line]) -> Line:
    whole = Line()
    for line in lines:
        whole.account = _sum([whole.account, line.account])
        whole.waits.add(line.waits)
    return whole


def _threads(blocked: BlockedTime, first: Sample, last: Sample) -> dict[Thread, Line]:
    """The line of each thread that is recorded one by one."""
    lines = {
        thread: Line(account, blocked.threads.get((thread.tid, thread.begin_ns)) or Waits())
        for thread, account in accounts(first, last).items()
    }
    by_birth = {(thread.tid, thread.begin_ns): line for thread, line in lines.items()}
    for task in (*last.tasks, *last.members.cuts):
        line = by_birth.get((task.thread.tid, task.thread.begin_ns))  # None: it ended, and is only in the sum
        if task.state == TaskState.BLOCKED and line:
            line.waits.add_known(wait_of(task), task.frames, length_ns(task, first, last))
    for sleeper in last.members.sleepers:
        if sleeper.account.blocked_ns:
            lines[sleeper.thread].waits.add_known(sleeper.wait_key, sleeper.stack, sleeper.account.blocked_ns)
    return lines


def _living(lines: Mapping[Thread, Line], last: Sample) -> list[Line]:
    ended = last.members.ended_singly
    return [line for thread, line in lines.items() if thread not in ended]


_parts = attrgetter(*(part.name for part in fields(Account)))


def _ended(first: Members, last: Members) -> Account:
    return Account(*(b - a for a, b in zip(_parts(first.ended), _parts(last.ended), strict=True)))


def _sum(accounts: Iterable[Account]) -> Account:
    return Account(*map(sum, zip(*map(_parts, accounts), strict=True)))


def _render(line: Line, names: Names, of_target: WaitStacks | None = None) -> dict[str, Any]:
    """A line as it stands in the evidence.  `of_target`: what was sampled of the whole target, for a thread's line."""
    account = line.account
    blocked_ns = account.blocked_ns + account.throttled_ns
    unexplained_ns = account.wall_ns - account.on_cpu_ns - account.runnable_ns - blocked_ns
    parts: list[Part] = []
    for wait, ns in line.waits.ns.items():
        theirs = of_target.get(wait) if of_target is not None else None
        parts += split(wait, ns, line.waits.stacks.get(wait, {}), names, theirs) if ns else []
    if account.throttled_ns:
        parts.append(exact_part("throttled", "CPU quota used up", account.throttled_ns))
    unknown_ns = blocked_ns - sum(part.ns for part in parts)
    if unknown_ns > 1000:
        parts.append(Part("other", "not told apart", ns=unknown_ns))
    return {
        "wall_ms": _ms(account.wall_ns),
        "on_cpu_ms": _ms(account.on_cpu_ns),
        "runnable_ms": _ms(account.runnable_ns),
        "blocked_ms": _ms(blocked_ns),
        "unexplained_ms": _ms(unexplained_ns),
        "blocked": _categories(parts),
    }


def _categories(parts: list[Part]) -> list[dict[str, Any]]:
    """Longest first, and in each the longest reasons first; equal reasons are added up."""
    grouped: dict[str, list[Part]] = defaultdict(list)
    for part in merged(parts):
        grouped[part.category].append(part)
    return sorted(
        (
            {
                "category": category,
                "ms": round(sum(part.ns for part in members) / 1e6, 6),
                "reasons": [part.rendered() for part in members],
            }
            for category, members in grouped.items()
        ),
        key=lambda category: -float(category["ms"]),
    )


def _ms(ns: int) -> float:
    return round(ns / 1e6, 6)
