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
from typing import Any

from chainbench_agent.evidence import waits
from chainbench_agent.evidence.open_intervals import WAIT_UNKNOWN
from chainbench_agent.evidence.sample import Account, Members, OpenInterval, Sample, Sleeper, TaskState, Thread
from chainbench_agent.evidence.waits import Frames, Part, Sampled, Stacks, exact_part
from chainbench_agent.probes.offcpu import NO_SYSCALL
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
    """An account, its blocked time by wait key in ns, and what is known of the functions that it was in."""

    account: Account = field(default_factory=Account)
    waits: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    stacks: Stacks = field(default_factory=lambda: defaultdict(lambda: defaultdict(Sampled)))

    def add_known(self, wait: int, frames: Frames, ns: int) -> None:
        """A wait whose length and stack are known, if there are `frames`."""
        self.waits[wait] += ns
        self.stacks[wait][frames].add(Sampled(exact_ns=ns))


def ledger(offcpu: Mapping[str, Any], names: Names, first: Sample, last: Sample) -> dict[str, Any]:
    """The evidence's `ledger`: the target as a whole, and its top threads.  `offcpu`: that module's differences."""
    lines = dict(_threads(offcpu, names, first, last))
    whole = Line(_sum([_ended(first.members, last.members), *(line.account for line in _living(lines, last))]))
    whole.waits, whole.stacks = waits.blocked_ns(offcpu), waits.stacks(offcpu, names)
    for sleeper in last.members.sleepers:
        if not sleeper.running:
            whole.add_known(sleeper.wait_key, sleeper.stack, lines[sleeper.thread].account.blocked_ns)
    top = sorted(lines.items(), key=lambda item: -item[1].account.wall_ns)[:TOP_THREADS]
    shown = [
        {"tid": thread.tid, "pid": thread.pid, "command": thread.command} | _render(line, names, whole.stacks)
        for thread, line in top
    ]
    known = last.members.ended_threads - first.members.ended_threads + len(_living(lines, last))
    return _render(whole, names) | {"threads": shown, "threads_not_shown": known - len(shown)}


def _threads(offcpu: Mapping[str, Any], names: Names, first: Sample, last: Sample) -> Iterator[tuple[Thread, Line]]:
    """Every thread that is known singly."""
    blocked, stacks = waits.blocked_ns_of_threads(offcpu), waits.stacks_of_threads(offcpu, names)

    def line(thread: Thread, account: Account) -> Line:
        place = thread.tid, thread.begin_ns
        return Line(account, blocked[place], stacks[place])

    for thread, account in last.members.ended_singly.items():
        yield thread, line(thread, account)
    for task in last.tasks:
        yield task.thread, _open_line(task, line(task.thread, task.account), first, last)
    for sleeper in last.members.sleepers:
        yield sleeper.thread, _sleeper_line(sleeper, last.at_ns - max(sleeper.thread.begin_ns, first.at_ns))


def _open_line(task: OpenInterval, line: Line, first: Sample, last: Sample) -> Line:
    """What the thread's account says, and its present state until the end of the run."""
    ns = max(last.at_ns - max(task.since_ns, first.at_ns), 0)
    until_ns = task.since_ns if task.state == TaskState.FREE else last.at_ns
    wall_ns = max(until_ns - max(task.thread.begin_ns, first.at_ns), 0)
    account = replace(task.account, wall_ns=wall_ns)
    if task.state in _OPEN:
        bucket = _OPEN[task.state]
        account = replace(account, **{bucket: getattr(account, bucket) + ns})
    line.account = account
    if task.state == TaskState.BLOCKED:
        line.add_known(NO_SYSCALL if task.wait == WAIT_UNKNOWN else task.wait, task.frames, ns)
    return line


def _sleeper_line(sleeper: Sleeper, ns: int) -> Line:
    """A thread that made no move was asleep all the time, or on a CPU of its own."""
    if sleeper.running:
        return Line(Account(wall_ns=ns, on_cpu_ns=ns))
    line = Line(Account(wall_ns=ns, blocked_ns=ns))
    line.add_known(sleeper.wait_key, sleeper.stack, ns)
    return line


def _living(lines: Mapping[Thread, Line], last: Sample) -> list[Line]:
    ended = last.members.ended_singly
    return [line for thread, line in lines.items() if thread not in ended]


_parts = attrgetter(*(part.name for part in fields(Account)))


def _ended(first: Members, last: Members) -> Account:
    return Account(*(b - a for a, b in zip(_parts(first.ended), _parts(last.ended), strict=True)))


def _sum(accounts: Iterable[Account]) -> Account:
    return Account(*map(sum, zip(*map(_parts, accounts), strict=True)))


def _render(line: Line, names: Names, of_target: Stacks | None = None) -> dict[str, Any]:
    """`of_target`: what was sampled of the whole target, for a line that is a thread's."""
    account = line.account
    blocked_ns = account.blocked_ns + account.throttled_ns
    unexplained_ns = account.wall_ns - account.on_cpu_ns - account.runnable_ns - blocked_ns
    parts: list[Part] = []
    for wait, ns in line.waits.items():
        theirs = of_target.get(wait) if of_target is not None else None
        parts += waits.split(wait, ns, line.stacks.get(wait, {}), names, theirs) if ns else []
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
    for part in waits.merged(parts):
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
