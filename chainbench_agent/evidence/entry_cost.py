"""Adds the entries of programs to the cost of measuring, and relates it to the target's CPU time.  Pure.

The kernel does not record which threads paid for a program's runs.  At some hooks the target's own figures show how
many of the runs belong to it; each of these is assumed to cost as much as any other run there.  At the other hooks, the
target's share is assumed to be its average at the former; the bounds assume that no run, or every run, belongs to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chainbench_agent.evidence import roles
from chainbench_agent.evidence.metric_keys import reported_key
from chainbench_agent.evidence.model import Cost, ProgramCost, Section
from chainbench_agent.probes import CATALOG

CALIBRATION = (
    "measured when the agent started, on system calls of its own, with empty programs attached and without; hot loops "
    "are the cheapest case"
)
OF_CALLS = ("sys_enter", "sys_exit")
OWN_FIGURES = {
    hook: (module.section_key, reported_key(metric))
    for module in CATALOG
    for metric in module.reported
    for hook in metric.each_of
}
"""Hook → the section and the key that say how many of its events were the target's.

A hook at which interrupts belong to no thread has no entry: the interrupted thread pays for them all the same.
"""
NO_CPU_TIME = (
    f"the target's CPU time is measured by the modules {roles.owner('on_cpu').name} and {roles.EXPLAINS_WAITS.name}, "
    "neither of which collects in this run"
)


@dataclass(frozen=True, slots=True)
class EntryCost:
    """The cost of entering one program beyond its own account, in ns: see kernel/entry_calibration.py."""

    call_ns: float
    """At the beginning or the end of a system call."""
    other_ns: float
    """At any other tracepoint."""


def with_entries(
    cost: Cost | None,
    entry: EntryCost | str,
    sections: Mapping[str, Section],
    ledger: Section | None,
    *,
    targeted: bool,
) -> Cost | None:
    """`cost` with what entering the programs cost, in all and of the target's CPU time, or with why it is unknown."""
    if cost is None:
        return None
    if isinstance(entry, str):
        return cost.model_copy(update={"unavailable": dict.fromkeys(("entry_ns", "target_cpu_percent"), entry)})
    calibrated = [program for program in cost.programs if program.source.startswith("raw_tracepoint:")]
    entries = {program.hook: program.runs * _each(program, entry) for program in calibrated}
    total, events = sum(entries.values()), sum(program.runs for program in calibrated)
    found = {
        "entry_ns": round(total),
        "entry_ns_per_event": round(total / events, 1) if events else 0.0,
        "entry_from": CALIBRATION,
        "entry_excludes": [program.hook for program in cost.programs if program not in calibrated] or None,
    }
    on_cpu_ms = roles.value("on_cpu", sections)
    if on_cpu_ms is None and ledger:
        on_cpu_ms = ledger["on_cpu_ms"]
    if on_cpu_ms is None:
        return cost.model_copy(update={**found, "unavailable": {"target_cpu_percent": NO_CPU_TIME}})
    shares = {p.hook: _share(p, sections) if targeted else 1.0 for p in cost.programs if p.runs}
    paid_ns = {p.hook: p.ns + entries.get(p.hook, 0.0) for p in cost.programs}
    found |= _of_target(shares, paid_ns, {p.hook: p.runs for p in cost.programs}, on_cpu_ms * 1e6)
    if targeted:
        found["target_shares"] = {hook: round(share, 4) for hook, share in shares.items() if share is not None}
    return cost.model_copy(update=found)


def _of_target(
    shares: Mapping[str, float | None], paid_ns: Mapping[str, float], runs: Mapping[str, int], on_cpu_ns: float
) -> dict[str, float]:
    """The percentage of the target's CPU time, and its bounds: they differ by the hooks with an unknown share."""
    known = {hook: share for hook, share in shares.items() if share is not None}
    own_ns = sum(share * paid_ns[hook] for hook, share in known.items())
    unknown_ns = sum(paid_ns[hook] for hook in shares.keys() - known.keys())
    events = sum(runs[hook] for hook in known)
    usual = sum(share * runs[hook] for hook, share in known.items()) / events if events else 1.0
    parts = {"": usual, "_at_least": 0.0, "_at_most": 1.0}
    return {
        f"target_cpu_percent{bound}": round(100 * (own_ns + part * unknown_ns) / on_cpu_ns, 4) if on_cpu_ns else 0.0
        for bound, part in parts.items()
    }


def _each(program: ProgramCost, entry: EntryCost) -> float:
    return entry.call_ns if program.hook in OF_CALLS else entry.other_ns


def _share(program: ProgramCost, sections: Mapping[str, Section]) -> float | None:
    """The target's part of the program's runs; None where no figure of this run counts its own."""
    section, key = OWN_FIGURES.get(program.hook, ("", ""))
    own = sections.get(section, {}).get(key)
    return None if own is None else min(own / program.runs, 1.0)
