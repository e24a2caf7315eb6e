"""The cost of one event: the kernel's time of the programs, minus that of empty programs on the same hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.accounts import Floor, Interval, Meter
from bench.numbers import Figure, Row, shown
from bench.subjects import Agent, Peers, Subject, Together, left_out
from bench.workloads import WORKLOADS

SECTION = "BPF time of an event"
WARM_UP = 0.1
FEW = 100
"""Fewer events are no measurement."""


@dataclass(frozen=True, slots=True)
class Case:
    """A row: under which load, with which of our modules, what counts as one event, who else does the same."""

    what: str
    load: str
    probes: tuple[str, ...]
    unit: str
    """The raw tracepoint whose every event is one."""
    reach: float | None
    peers: Callable[[Peers], Sequence[Subject]]
    only: tuple[str, ...] = ("",)
    """Ours are counted on the hooks that begin so; the note has what the same modules take elsewhere."""
    hooks: tuple[str, ...] = ()
    """Further ones that the floor is measured on."""


def _trios(peers: Peers) -> Sequence[Subject]:
    """Run-queue latency, off-CPU time and on-CPU time; two tools of BCC require kprobes, which some kernels lack."""
    off_and_on = ("offcputime", "cpudist")
    scripts = [peers.bpftrace(name) for name in off_and_on]
    return (
        Together("libbpf-tools: 3", [peers.libbpf_tools(name) for name in ("runqlat", *off_and_on)]),
        Together("BCC: 1, bpftrace: 2", [peers.bcc("runqlat"), *scripts]),
        Together("bpftrace: 3", [peers.bpftrace("runqlat"), *scripts]),
    )


CASES = (
    *(
        Case(f"context switch with its wake-up ({load})", load, ("runqlat", "offcpu", "cpu"), "sched_switch", 450,
             _trios, ("sched_switch", "sched_wakeup"), ("sched_wakeup",))
        for load in ("pipe", "hackbench")
    ),
    Case("system call", "syscall", ("syscalls",), "sys_enter", 30,
         lambda p: (p.libbpf_tools("syscount"), p.bcc("syscount"), p.bpftrace("syscalls"))),
    Case("block request, issue and completion", "fio", ("biolatency", "io"), "block_rq_issue", 300,
         lambda p: (p.libbpf_tools("biolatency"), p.bpftrace("biolatency")), ("block_",), ("block_rq_complete",)),
    Case("soft interrupt", "udp", ("cpu",), "softirq_entry", 150,
         lambda p: (p.libbpf_tools("softirqs"), p.bcc("softirqs")), ("softirq_",)),
    Case("TCP send and receive", "tcp", ("network",), "sock_send_length", 250,
         lambda p: (p.bpftrace("tcp"),), ("sock_",), ("sock_recv_length",)),
    Case("lock contention, begin and end", "locks", ("locks",), "contention_begin", 350,
         lambda p: (p.bpftrace("locks"),), ("contention_",), ("contention_end",)),
    Case("exec", "exec", ("exec",), "sched_process_exec", 2000,
         lambda p: (p.libbpf_tools("execsnoop"), p.bpftrace("execsnoop")),
         hooks=("sched_process_fork", "sched_process_exit")),
)  # fmt: skip


def measure(agent: Agent, peers: Peers, rounds: int, share: float, only: str = "") -> Iterator[Row]:
    """A row for each case whose name has `only` in it."""
    for case in CASES:
        if only in case.what:
            yield _row(case, agent, peers, rounds, share)


def _row(case: Case, agent: Agent, peers: Peers, rounds: int, share: float) -> Row:
    ours = agent.collecting(*case.probes)
    subjects: tuple[Subject, ...] = (ours, *case.peers(peers))
    found: dict[str, list[Interval]] = {subject.name: [] for subject in subjects}
    absent: dict[str, str] = {}
    with Floor(dict.fromkeys((case.unit, *case.hooks))) as floor:
        for _ in range(rounds):
            for subject in subjects:
                with left_out(subject, absent):
                    found[subject.name].append(_interval(subject, floor, case, share))
    figures = {
        name: Figure.of([i.net_ns(*(case.only if name == ours.name else ())) / i.events(case.unit) for i in intervals])
        for name, intervals in found.items()
        if intervals
    }
    what = f"{case.what}: {', '.join(case.probes)}"
    note = "; ".join([_by_hook(found[ours.name], case), *(f"no {name}: {why}" for name, why in absent.items())])
    return Row(SECTION, what, "ns", figures.pop(ours.name), case.reach, figures, below_peers=True, note=note)


def _interval(subject: Subject, floor: Floor, case: Case, share: float) -> Interval:
    load = WORKLOADS[case.load]
    with subject.running() as pids:
        load.run(share * WARM_UP)
        meter = Meter(floor, pids)
        load.run(share)
        interval = meter.interval()
    if interval.events(case.unit) < FEW:
        raise RuntimeError(f"only {interval.events(case.unit)} events of {case.unit} under {case.load}")
    if not any(account.runs for account in interval.programs.values()):
        raise RuntimeError(f"no program of {subject.name} ran")
    return interval


def _by_hook(intervals: Sequence[Interval], case: Case) -> str:
    """By hook, what our programs took for one event, and how often they ran for it."""
    hooks: dict[str, list[tuple[float, float]]] = {}
    for interval in intervals:
        events = interval.events(case.unit)
        for account in interval.programs.values():
            net = (account.ns - account.runs * interval.floor_ns) / events
            hooks.setdefault(account.hook, []).append((net, account.runs / events))
    parts = []
    for hook, values in hooks.items():
        net, runs = (sum(column) / len(values) for column in zip(*values, strict=True))
        if runs >= 0.005:
            parts.append(f"{hook} {shown(net)} ({runs:.2f} runs)")
    return "; ".join(parts)
