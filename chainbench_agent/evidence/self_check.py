"""Checks what must hold between the numbers of one evidence; a violation is a fault of the agent.

Each comparison has a tolerance, with its reason here:

- `IN_FLIGHT_MS`: a program that began before the end of the run may still write while the maps are read.
- `SHARE`: lengths are differences of clock readings on several CPUs.
- While a run is on, its maps are read one after the other and grow meanwhile: on each CPU by the time of the reading.
- `OPEN_MS`: cpu.stat gets a throttling when it ends, which may be one period of a quota later, on each CPU.
- A lost event may be missing on one side only, so counts may differ by as many as were lost.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from chainbench_agent.catalog import Check, PartOf, RoleName, Same, SumOf
from chainbench_agent.evidence import roles
from chainbench_agent.evidence.distribution import section_to_json
from chainbench_agent.evidence.model import Evidence, Section, SelfCheck, Violation
from chainbench_agent.probes import CATALOG

IN_FLIGHT_MS = 1.0
SHARE = 0.001
OPEN_MS = 1000.0
"""The longest period of a quota: max_cfs_quota_period in kernel/sched/core.c."""

INVARIANTS: Mapping[str, str] = {
    "on_cpu_within_cpus": "threads are on the CPUs that there are, for as long as the run was",
    "on_cpu": f"ledger.on_cpu_ms and {roles.key('on_cpu')} are the same time",
    "runnable": f"ledger.runnable_ms and {roles.key('runnable')} are the same time",
    "blocked": f"ledger.blocked_ms is what {roles.owner('blocked').section_key} has as blocked and throttled",
    "throttled": f"the ledger's category throttled is {roles.key('throttled')}",
    "throttled_by_groups": "no thread is throttled for longer than the cgroups whose quotas hold for it",
    "unexplained": "no line has more in its parts than its wall time",
    "reasons": "the reasons of a line add up to its blocked time",
    "wall": "no thread is in the run for longer than the run was",
    "threads": "the ledger has as many threads as the target had",
    "processes": "the ledger's threads are of no more processes than the target had",
    "off_cpu": "voluntary and involuntary, or blocked, runnable and throttled, are all off-CPU time",
    "switches": "each context switch is voluntary or not",
    "distribution": "a distribution's buckets, extremes, mean and quantiles belong together",
    "counted_twice": "what two metrics of a module count is the same number",
    "part_of_whole": "a part is no more than its whole",
}
"""The checks by name; each name is a label of /metrics."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two numbers that must be equal, or the first no more than the second."""

    invariant: str
    left: float
    right: float
    what: str
    unit: str = "ms"
    tolerance: float = 0.0
    at_most: bool = False

    @property
    def violated(self) -> bool:
        off = self.left - self.right
        return (off if self.at_most else abs(off)) > self.tolerance


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Facts of a run that its evidence does not have: see Sample."""

    cpus: int
    run_ms: float
    reading_ms: float
    """How long the maps were read while they grew; 0 for a run that has ended."""

    def tolerance_ms(self, *times_ms: float) -> float:
        return IN_FLIGHT_MS + self.cpus * self.reading_ms + SHARE * max(map(abs, times_ms), default=0.0)


def self_check(evidence: Evidence, circumstances: Circumstances) -> SelfCheck:
    """All that can be checked of this evidence, and what does not hold."""
    made = list(_comparisons(evidence, circumstances))
    violations = [
        Violation(
            invariant=one.invariant,
            left=round(one.left, 6),
            right=round(one.right, 6),
            tolerance=round(one.tolerance, 6),
            unit=one.unit,
            note=f"{one.what}: {INVARIANTS[one.invariant]}",
        )
        for one in made
        if one.violated
    ]
    return SelfCheck(checked=len(made), violations=violations)


def _comparisons(evidence: Evidence, at: Circumstances) -> Iterator[Comparison]:
    lost = evidence.loss.total if evidence.loss else 0
    sections = {name: section_to_json(section) for name, section in evidence.sections.items()}
    if evidence.ledger is not None:
        yield from _ledger(evidence.ledger, at)
        yield from _against_sections(evidence.ledger, evidence.sections, at)
        yield from _population(evidence, evidence.ledger, at, lost)
    yield from _cpus(evidence, sections, at)
    yield from _throttled(evidence, at)
    for name, section in sections.items():
        yield from _distributions(name, section)
        yield from _other_processes(name, section, at, lost)
    for module in CATALOG:
        section = sections.get(module.section_key, {})
        for check in module.checks:
            yield from _declared(module.section_key, check, section, at, lost)


def _ledger(ledger: Mapping[str, Any], at: Circumstances) -> Iterator[Comparison]:
    lines = {"ledger": ledger, **{f"thread {line['tid']}": line for line in ledger["threads"]}}
    for what, line in lines.items():
        tolerance = at.tolerance_ms(line["wall_ms"])
        yield Comparison("unexplained", -line["unexplained_ms"], 0, what, tolerance=tolerance, at_most=True)
        reasons = sum(reason["ms"] for category in line["blocked"] for reason in category["reasons"])
        yield Comparison("reasons", reasons, line["blocked_ms"], what, tolerance=tolerance)


def _against_sections(
    ledger: Mapping[str, Any], sections: Mapping[str, Section], at: Circumstances
) -> Iterator[Comparison]:
    throttled_ms = sum(category["ms"] for category in ledger["blocked"] if category["category"] == "throttled")
    lines: dict[RoleName, float] = {
        "on_cpu": ledger["on_cpu_ms"],
        "runnable": ledger["runnable_ms"],
        "blocked": ledger["blocked_ms"],
        "throttled": throttled_ms,
    }
    for role, left in lines.items():
        right = roles.value(role, sections)
        if right is not None:
            yield Comparison(role, left, right, "ledger", tolerance=at.tolerance_ms(left, right))
    yield Comparison(
        "on_cpu_within_cpus",
        ledger["on_cpu_ms"],
        at.cpus * at.run_ms,
        "ledger",
        tolerance=at.tolerance_ms(at.cpus * at.run_ms),
        at_most=True,
    )


def _population(evidence: Evidence, ledger: Mapping[str, Any], at: Circumstances, lost: int) -> Iterator[Comparison]:
    threads, processes = evidence.target.threads_seen, evidence.target.processes_seen
    if threads is None or processes is None:
        return
    known = len(ledger["threads"]) + ledger["threads_not_shown"]
    if not at.reading_ms:  # else a thread may be born between the one reading and the other
        yield Comparison("threads", known, threads, "ledger", "threads", lost)
    wall_ms = threads * at.run_ms
    yield Comparison("wall", ledger["wall_ms"], wall_ms, "ledger", tolerance=at.tolerance_ms(wall_ms), at_most=True)
    pids = {line["pid"] for line in ledger["threads"]}
    yield Comparison("processes", len(pids), processes, "ledger", "processes", lost, at_most=True)


def _cpus(evidence: Evidence, sections: Mapping[str, Section], at: Circumstances) -> Iterator[Comparison]:
    """Idle time is not added after `loss.unseen_switches`: a thread whose end on a CPU was not shown has it as well."""
    unseen = evidence.loss and "unseen_switches" in evidence.loss.causes
    on_cpu_ms, idle_ms = roles.value("on_cpu", sections), roles.value("idle", sections) if not unseen else 0
    whole_ms = at.cpus * at.run_ms
    if on_cpu_ms is not None:
        yield Comparison(
            "on_cpu_within_cpus",
            on_cpu_ms + (idle_ms or 0),
            whole_ms,
            roles.owner("on_cpu").section_key,
            tolerance=at.tolerance_ms(whole_ms),
            at_most=True,
        )


def _throttled(evidence: Evidence, at: Circumstances) -> Iterator[Comparison]:
    """Not compared after `loss.task_collisions`: a thread whose record shared its slot has the time of another."""
    threads = evidence.target.threads_seen
    collided = evidence.loss and "task_collisions" in evidence.loss.causes
    threads_ms = roles.value("throttled", evidence.sections)
    groups_ms = roles.value("throttled_groups", evidence.sections)
    if threads is None or collided or threads_ms is None or groups_ms is None:
        return
    most_ms = threads * (groups_ms + at.cpus * OPEN_MS)
    yield Comparison("throttled_by_groups", threads_ms, most_ms, roles.key("throttled"), at_most=True)


def _distributions(name: str, section: Mapping[str, Any]) -> Iterator[Comparison]:
    found = {f"{name}.{key}": value for key, value in section.items() if isinstance(value, dict)} | {name: section}
    for what, one in found.items():
        if "histogram" not in one:
            continue
        count = one["count"]
        buckets = sum(bucket["count"] for bucket in one["histogram"])
        yield Comparison("distribution", buckets, count, f"{what}.histogram", "events")
        if "mean_us" not in one:
            continue
        ascending = [one[key] for key in ("min_us", "p50_us", "p95_us", "p99_us", "max_us")]
        for lower, higher in pairwise(ascending):
            yield Comparison("distribution", lower, higher, what, "us", 0.001, at_most=True)
        yield Comparison("distribution", one["min_us"], one["mean_us"], what, "us", 0.001, at_most=True)
        yield Comparison("distribution", one["mean_us"], one["max_us"], what, "us", 0.001, at_most=True)


def _other_processes(name: str, section: Mapping[str, Any], at: Circumstances, lost: int) -> Iterator[Comparison]:
    """The processes that are not shown have the rest of the whole, which is never negative."""
    for key, value in section.get("other_processes", {}).items():
        whole = value + sum(process[key] for process in section["top_processes"])
        in_ms = key.endswith("_ms")
        tolerance = at.tolerance_ms(whole) if in_ms else lost + SHARE * whole if at.reading_ms else lost
        what = f"{name}.other_processes.{key}"
        yield Comparison("part_of_whole", -value, 0, what, "ms" if in_ms else "", tolerance, at_most=True)


def _declared(
    name: str, check: Check, section: Mapping[str, Any], at: Circumstances, lost: int
) -> Iterator[Comparison]:
    """A condition that a module declares between figures of its section, if all of them are there."""
    match check:
        case Same(figure, distribution, key) if {figure, distribution} <= section.keys():
            left, right = section[figure], section[distribution][key]
            if key == "sum_us":
                tolerance = at.tolerance_ms(left)
                yield Comparison("counted_twice", left, right / 1e3, f"{name}.{figure}", "ms", tolerance)
            elif not at.reading_ms:
                yield Comparison("counted_twice", left, right, f"{name}.{figure}", "events")
        case PartOf(part, whole) if {part, whole} <= section.keys():
            in_ms = part.endswith("_ms")
            tolerance = at.tolerance_ms(section[whole]) if in_ms else lost + SHARE * section[whole]
            unit = "ms" if in_ms else "events"
            yield Comparison(
                "part_of_whole", section[part], section[whole], f"{name}.{part}", unit, tolerance, at_most=True
            )
        case SumOf(parts, whole, invariant, unit) if {whole, *parts} <= section.keys():
            tolerance = IN_FLIGHT_MS if unit == "ms" else 0.0
            yield Comparison(invariant, sum(section[part] for part in parts), section[whole], name, unit, tolerance)
