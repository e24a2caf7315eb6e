"""What a whole workload feels: the time of an operation with a subject, by that without.

Rounds are interleaved: without, with the first, without, with the second, …; each time is compared to the mean of its
two neighbours without, so that what changes slowly on the machine drops out.
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
"""Of a workload that makes 50,000 events a second or fewer."""
FIVE = ("runqlat", "biolatency", "offcpu", "exec", "syscalls")
THEIR_FIVE = ("runqlat", "biolatency", "offcputime", "execsnoop", "syscount")

Times = Mapping[str, float]
"""Load → seconds for an operation."""


def measure(agent: Agent, peers: Peers, rounds: int, share: float, loads: Sequence[str] = LOADS) -> Iterator[Row]:
    """Two rows for each load: with the five aggregators, and with everything."""
    five, everything = agent.collecting(*FIVE, name="five"), agent.collecting(name="everything")
    others = (
        Together("libbpf-tools: 5", [peers.libbpf_tools(name) for name in THEIR_FIVE]),
        Together("BCC: 2, bpftrace: 3", [
            *(peers.bcc(name) for name in ("runqlat", "syscount")),
            *(peers.bpftrace(name) for name in ("biolatency", "offcputime", "execsnoop")),
        ]),
    )  # fmt: skip
    ratios, noise = _ratios((five, everything, *others), rounds, share, loads)
    for load in loads:
        figures = {name: Figure.with_interval(found[load]) for name, found in ratios.items() if found[load]}
        theirs = {name: figure for name, figure in figures.items() if name not in (five.name, everything.name)}
        note = f"without any: neighbours differ by {shown(100 * noise[load].median)} %"
        for ours, which in ((five, "the five aggregators"), (everything, "everything")):
            reach = AT_MOST if load == PACED else None
            what = f"{load} ({WORKLOADS[load].operation}): {which}"
            yield Row(SECTION, what, "x", figures[ours.name], reach, theirs, below_peers=True, note=note)


def _ratios(
    subjects: Sequence[Subject], rounds: int, share: float, loads: Sequence[str]
) -> tuple[dict[str, dict[str, list[float]]], dict[str, Figure]]:
    """Subject → load → its ratios; load → how much neighbours without any differ."""
    ratios: dict[str, dict[str, list[float]]] = {s.name: {load: [] for load in loads} for s in subjects}
    noise: dict[str, list[float]] = {load: [] for load in loads}
    absent: dict[str, str] = {}
    _times(loads, share)  # everything is read from the disk once
    before = _times(loads, share)
    for subject in [subject for _ in range(rounds) for subject in subjects]:
        with left_out(subject, absent):
            with subject.running():
                during = _times(loads, share)
            after = _times(loads, share)
            for load in loads:
                ratios[subject.name][load].append(2 * during[load] / (before[load] + after[load]))
                noise[load].append(2 * abs(after[load] - before[load]) / (before[load] + after[load]))
            before = after
    return ratios, {load: Figure.of(values) for load, values in noise.items()}


def _times(loads: Sequence[str], share: float) -> Times:
    return {load: WORKLOADS[load].run(share) for load in loads}
