"""The slowdown of a whole workload: the time of an operation with a subject, divided by that without.

Rounds are interleaved: without, with the first, without, with the second, …; each time is compared to the mean of its
two neighbours without, so that what changes slowly on the machine drops out.

The kernel's accounting of BPF programs reads the clock twice a run, and slows down whoever's programs: it is off for
all, as it is under the agent's systemd unit; a third row has it on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.numbers import Figure, Row, shown
from bench.subjects import Agent, Peers, Subject, Together, left_out
from bench.workloads import WORKLOADS

SECTION = "Slowdown of whole workloads"
LOADS = ("pipe pinned", "pipe", "hackbench", "syscall", "exec", "iperf3", "fio", "paced")
PACED = "paced"
AT_MOST = 1.01
"""The goal for a workload that makes 50,000 events a second or fewer."""
FIVE = ("runqlat", "biolatency", "offcpu", "exec", "syscalls")
THEIR_FIVE = ("runqlat", "biolatency", "offcputime", "execsnoop", "syscount")

Times = Mapping[str, float]
"""Load → seconds for an operation."""


def measure(service: Agent, counting: Agent, peers: Peers, rounds: int, share: float) -> Iterator[Row]:
    """Three rows for each load: with the five aggregators, with everything, and by a daemon that tells its cost."""
    five, everything = service.collecting(*FIVE, name="five"), service.collecting(name="everything")
    with_cost = counting.collecting(name="everything, and its cost")
    others = (
        Together("libbpf-tools: 5", [peers.libbpf_tools(name) for name in THEIR_FIVE]),
        Together("BCC: 2, bpftrace: 3", [
            *(peers.bcc(name) for name in ("runqlat", "syscount")),
            *(peers.bpftrace(name) for name in ("biolatency", "offcputime", "execsnoop")),
        ]),
    )  # fmt: skip
    ratios, noise = _ratios((five, everything, with_cost, *others), rounds, share)
    for load in LOADS:
        figures = {name: Figure.with_interval(found[load]) for name, found in ratios.items() if found[load]}
        theirs = {other.name: figures[other.name] for other in others if other.name in figures}
        note = f"without any: neighbours differ by {shown(100 * noise[load].median)} %"
        for ours, which in ((five, "the five aggregators"), (everything, "everything")):
            reach = AT_MOST if load == PACED else None
            what = f"{load} ({WORKLOADS[load].operation}): {which}"
            yield Row(SECTION, what, "x", figures[ours.name], reach, theirs, below_peers=True, note=note)
        what = f"{load} ({WORKLOADS[load].operation}): {with_cost.name}"
        yield Row(SECTION, what, "x", figures[with_cost.name], None, {}, note="the kernel's accounting is on")


def _ratios(
    subjects: Sequence[Subject], rounds: int, share: float
) -> tuple[dict[str, dict[str, list[float]]], dict[str, Figure]]:
    """Subject → load → its ratios; load → how much neighbours without any differ."""
    ratios: dict[str, dict[str, list[float]]] = {s.name: {load: [] for load in LOADS} for s in subjects}
    noise: dict[str, list[float]] = {load: [] for load in LOADS}
    absent: dict[str, str] = {}
    _times(share)  # everything is read from the disk once
    before = _times(share)
    for subject in [subject for _ in range(rounds) for subject in subjects]:
        with left_out(subject, absent):
            with subject.running():
                during = _times(share)
            after = _times(share)
            for load in LOADS:
                ratios[subject.name][load].append(2 * during[load] / (before[load] + after[load]))
                noise[load].append(2 * abs(after[load] - before[load]) / (before[load] + after[load]))
            before = after
    return ratios, {load: Figure.of(values) for load, values in noise.items()}


def _times(share: float) -> Times:
    return {load: WORKLOADS[load].run(share) for load in LOADS}
