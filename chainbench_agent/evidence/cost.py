"""The cost of measuring, by the kernel's own account of our programs.  Pure.

Modules that need the same hook share one program, and the kernel has one account for each program.  So a module's part
of a shared program is not measured, and it is not made up either (docs/decisions/0006): the evidence has a lower bound,
the programs that only this module uses, and an upper bound, all programs that it has a part in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from chainbench_agent.evidence.model import Cost, ModuleCost, ProgramCost
from chainbench_agent.evidence.sample import Sample


def cost(
    sources: Mapping[str, str], parts: Mapping[str, frozenset[str]], cpus: int, first: Sample, last: Sample
) -> Cost | None:
    """`sources`: hook → what feeds its program, of those that this run attached; `parts`: module → the hooks it is in.

    None if there are no programs.
    """
    if not last.programs:
        return None
    programs = {
        hook: ProgramCost(
            hook=hook,
            source=sources[hook],
            runs=run.runs - first.programs[hook].runs,
            ns=run.ns - first.programs[hook].ns,
        )
        for hook, run in last.programs.items()
        if hook in sources
    }
    sharers = Counter(hook for hooks in parts.values() for hook in hooks)
    cpu_ns = (last.at_ns - first.at_ns) * cpus
    total, events = sum(p.ns for p in programs.values()), sum(p.runs for p in programs.values())
    return Cost(
        cpu_percent=_percent(total, cpu_ns),
        bpf_ns=total,
        events=events,
        ns_per_event=_each(total, events),
        programs=sorted(programs.values(), key=lambda p: -p.ns),
        modules={
            module: _module([programs[hook] for hook in sorted(hooks & programs.keys())], sharers, cpu_ns)
            for module, hooks in parts.items()
        },
    )


def _module(programs: list[ProgramCost], sharers: Mapping[str, int], cpu_ns: int) -> ModuleCost:
    total, events = sum(p.ns for p in programs), sum(p.runs for p in programs)
    alone = sum(p.ns for p in programs if sharers[p.hook] == 1)
    return ModuleCost(
        hooks=[p.hook for p in programs],
        events=events,
        bpf_ns_alone=alone,
        bpf_ns_shared=total - alone,
        ns_per_event_at_most=_each(total, events),
        cpu_percent_at_most=_percent(total, cpu_ns),
    )


def _each(ns: int, events: int) -> float:
    return round(ns / events, 1) if events else 0.0


def _percent(ns: int, cpu_ns: int) -> float:
    return round(100 * ns / cpu_ns, 4) if cpu_ns else 0.0
