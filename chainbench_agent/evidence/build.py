"""Sample + Sample → Evidence.  Pure: no I/O, no clock.

Counters in the kernel only grow, so what happened in the run is the last sample minus the first.  Intervals that were
still open at the last sample are cut there and added; those that were open at the first were cut in the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chainbench_agent.abi.histogram import HistogramCounts
from chainbench_agent.abi.process import Process
from chainbench_agent.catalog import Counter, Derived, Distribution, Metric, Module, Names, Procfs, Table
from chainbench_agent.evidence.cost import cost
from chainbench_agent.evidence.cross_check import counters_check, schedstat_check, throttled_check
from chainbench_agent.evidence.entry_cost import EntryCost, with_entries
from chainbench_agent.evidence.isolate_failures import one_by_one
from chainbench_agent.evidence.ledger import ledger
from chainbench_agent.evidence.loss import loss
from chainbench_agent.evidence.metric_keys import reported_key
from chainbench_agent.evidence.model import CrossCheck, Evidence, Run, Section, Target
from chainbench_agent.evidence.open_intervals import close_processes, closed, open_time
from chainbench_agent.evidence.roles import EXPLAINS_WAITS
from chainbench_agent.evidence.sample import Sample, Value
from chainbench_agent.evidence.sampling_error import sampling
from chainbench_agent.evidence.self_check import Circumstances, self_check
from chainbench_agent.evidence.sleepers import uncounted_processes, with_accounts
from chainbench_agent.evidence.thread_accounts import accounts, idle_threads
from chainbench_agent.evidence.top_processes import top_processes

NO_LEDGER = f"the ledger is made from the module {EXPLAINS_WAITS.name}, which does not collect in this run"


@dataclass(frozen=True, slots=True)
class Method:
    """How a run was measured: the sources of its numbers, and the reasons for those that are absent."""

    modules: tuple[Module, ...]
    sources: Mapping[str, Mapping[str, str]]
    """Module → metric → sources, joined by ", "."""
    unavailable: Mapping[str, Mapping[str, str]]
    """Module → metric → reason."""
    absent: Mapping[str, str]
    """Module → reason, for modules that are absent as a whole."""
    program_sources: Mapping[str, str]
    """Hook → the source it is attached to, in this run."""
    cpus: int
    raised_on: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Hook that has no program of its own → the hooks whose programs raise it."""
    no_cost: str = ""
    """Why the kernel did not count what its programs cost; empty if it did."""
    entry: EntryCost | str = "it was not calibrated"
    """The cost of entering a program, or why it is not known."""
    sample_interval: int = 1
    """One in so many events of a sampled metric was recorded."""
    target: Target = field(default_factory=Target)
    """The target as it was requested."""

    @property
    def targeted(self) -> bool:
        return self.target.kind != "machine"

    @property
    def parts(self) -> dict[str, frozenset[str]]:
        """Module → the hooks in whose programs it has a part."""
        raised = self.raised_on
        return {m.name: frozenset(on for hook in m.hooks for on in raised.get(hook, (hook,))) for m in self.modules}


def build(run: Run, method: Method, first: Sample, last: Sample, names: Names) -> Evidence:
    """The evidence of a run between two samples, with a check of itself."""
    evidence = _evidence(run, method, first, with_accounts(first, last), names)
    reading_ms = max(last.read_by_ns - last.at_ns, 0) / 1e6
    circumstances = Circumstances(method.cpus, (last.at_ns - first.at_ns) / 1e6, reading_ms)
    return evidence.model_copy(update={"self_check": self_check(evidence, circumstances)})


def _evidence(run: Run, method: Method, first: Sample, last: Sample, names: Names) -> Evidence:
    unread = {**first.unread, **last.unread}
    readable = [module for module in method.modules if module.name not in unread]
    grown, not_grown = one_by_one(readable, lambda module: difference(module, first, last))
    idle = idle_threads(accounts(first, last), first, last) if method.targeted else None
    open_ = open_time(first, last, targeted=method.targeted, idle=idle)
    counts, not_closed = one_by_one(grown, lambda module: closed(module, grown[module], open_))
    processes = close_processes(first, last, counts, targeted=method.targeted)
    whole, not_whole = one_by_one(counts, lambda m: _whole_section(m, method, counts[m], names, processes))
    sections = {module.section_key: found for module, found in whole.items()}
    failed = {m.name: unread[m.name] for m in method.modules if m.name in unread}
    failed |= not_grown | not_closed | not_whole
    blocked = next((m.explain_waits(counts[m], names) for m in whole if m.explain_waits and method.targeted), None)
    whole_ledger = ledger(blocked, names, first, last) if blocked else None
    spent = None if method.no_cost else cost(method.program_sources, method.parts, method.cpus, first, last)
    return Evidence(
        available=True,
        source="ebpf",
        run=run,
        target=_population(method.target, first, last),
        sections=sections,
        ledger=whole_ledger,
        unavailable={
            **method.absent,
            **failed,
            **({"ledger": failed.get(EXPLAINS_WAITS.name, NO_LEDGER)} if method.targeted and not blocked else {}),
            **({"cost": method.no_cost} if method.no_cost else {}),
        },
        loss=loss(method.modules, method.raised_on, method.unavailable, first, last),
        cost=with_entries(spent, method.entry, sections, whole_ledger, targeted=method.targeted),
        cross_check=_cross_check(method, sections, first, last, explained=blocked is not None),
    )


def _whole_section(
    module: Module, method: Method, counts: Mapping[str, Any], names: Names, processes: tuple[Process, ...]
) -> Section:
    unavailable = method.unavailable[module.name]
    return (
        section(module, counts, names, unavailable, method.sources[module.name])
        | top_processes(module, counts, processes, unavailable)
        | sampling(module, counts, names, unavailable, method.sample_interval)
        | (_scope(module) if method.targeted else {})
    )


def _cross_check(
    method: Method, sections: Mapping[str, Section], first: Sample, last: Sample, *, explained: bool
) -> dict[str, CrossCheck]:
    """The comparisons with the kernel's own counters; with a target, those of the ledger."""
    throttled = throttled_check(sections)
    if not method.targeted:
        return counters_check(sections, first, last) | throttled
    return (schedstat_check(first, last) if explained else {}) | throttled


def _scope(module: Module) -> Section:
    """The metrics that belong to CPUs or to no known thread, so that they count the whole machine despite a target."""
    wide = [reported_key(metric) for metric in module.reported if metric.machine_wide]
    return {"scope": dict.fromkeys(wide, "machine")} if wide else {}


def _population(target: Target, first: Sample, last: Sample) -> Target:
    """The target with the numbers of its processes and threads in the run."""
    if target.kind == "machine":
        return target
    before, after = first.members, last.members
    seen = {
        "processes_seen": uncounted_processes(after) + after.processes - before.processes,
        "threads_seen": len(after.sleepers) + after.threads - before.threads,
    }
    return target.model_copy(update=seen)


def difference(module: Module, first: Sample, last: Sample) -> dict[str, Any]:
    """The growth of each metric of a module between two samples."""
    before, after = first.modules[module.name], last.modules[module.name]
    grown = {name: _subtract(after[name], before[name]) for name in after}
    fields = {m.name: m.field for m in module.procfs if m.field in last.procfs}
    return grown | {name: last.procfs[field_] - first.procfs[field_] for name, field_ in fields.items()}


def _subtract(after: Value, before: Value) -> Any:
    match after, before:
        case int(), int():
            return after - before
        case tuple(), tuple():
            return tuple(a - b for a, b in zip(after, before, strict=True))
        case HistogramCounts(), HistogramCounts():
            slots = tuple(a - b for a, b in zip(after.slots, before.slots, strict=True))
            # the extremes are always those of the present run
            return HistogramCounts(slots, after.sum - before.sum, after.min, after.max)
    return after  # hashes and figures by disk are emptied between runs


def section(
    module: Module,
    counts: Mapping[str, Any],
    names: Names,
    unavailable: Mapping[str, str],
    sources: Mapping[str, str],
) -> Section:
    """A module's part of the evidence.  `counts`: metric → difference; unavailable metrics are left out."""
    measured = [m for m in module.reported if reported_key(m) not in unavailable]
    derived = module.derive(counts, names) if module.derive else {}
    found: Section = {}
    for metric in measured:
        key = reported_key(metric)
        if isinstance(metric, Derived):
            if metric.name not in derived:
                continue
            value = derived[metric.name]
            found |= value if metric.inline else {key: _rounded(value)}
        else:
            found[key] = _reported(metric, counts[metric.name], names)
    found["sources"] = dict(sources)
    if unavailable:
        found["unavailable"] = dict(unavailable)
    return found


def _reported(metric: Metric, value: Any, names: Names) -> Any:
    in_ms = metric.name.endswith("_ns")
    match metric:
        case Distribution():
            return value
        case Counter() | Procfs():
            return _rounded(value / 1e6) if in_ms else value
        case Table(names=called):
            return {
                called(names, index): _rounded(count / 1e6) if in_ms else count
                for index, count in enumerate(value)
                if count
            }
    raise TypeError(f"{metric.name}: a {type(metric).__name__} is not reported by itself; derive something from it")


def _rounded(value: Any) -> Any:
    """Nanosecond precision in milliseconds and microseconds: what was measured, and no binary noise."""
    return round(value, 6) if isinstance(value, float) else value
