"""The measured backend: a run is two samples of this machine's kernel."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from chainbench_agent.catalog import Hook, Metric, Module, Procfs
from chainbench_agent.catalog.selection import EVERYTHING, Selection
from chainbench_agent.collector.base import not_asked_for, option_states
from chainbench_agent.evidence.build import Method, build
from chainbench_agent.evidence.loss import PROGRAMS_SKIPPED
from chainbench_agent.evidence.metric_keys import reported_key
from chainbench_agent.evidence.model import Evidence, Run, Target
from chainbench_agent.evidence.roles import EXPLAINS_WAITS
from chainbench_agent.evidence.sample import Sample
from chainbench_agent.kernel.entry_calibration import calibrate
from chainbench_agent.kernel.machine import Machine
from chainbench_agent.kernel.reading.proc_counters import proc_counters
from chainbench_agent.kernel.reading.sample_reader import LOSS_CAUSES
from chainbench_agent.kernel.targets.kernel_target import resolve
from chainbench_agent.loading.event_records import Telling
from chainbench_agent.loading.pmu_events import source_of
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.model.status import CollectorStatus, HookStatus, ModuleStatus, State

log = logging.getLogger(__name__)


class EbpfCollector:
    """See base.Collector.  Raises SetupError at construction when eBPF cannot be used here."""

    def __init__(
        self,
        modules: Iterable[Module],
        hooks: Iterable[Hook],
        cache_dir: Path,
        options: Collection[str] = (),
        *,
        events: Telling | None = None,
    ) -> None:
        """`options`: the selected ones, as `module:option`.  `events`: emit events as they happen."""
        self._asked = tuple(modules)
        self._hooks = {hook.name: hook for hook in hooks}
        self._options = frozenset(options)
        self._entry = calibrate()  # while none of our programs is attached
        self._machine = Machine(self._asked, self._hooks.values(), cache_dir, self._options, events=events)
        self.ring = self._machine.ring
        try:
            self._statuses = {targeted: self._examine_all(targeted=targeted) for targeted in (False, True)}
            self._status = self._statuses[False]
            self._method = self._describe(Target(), EVERYTHING, ())
        except BaseException:
            self._machine.close()
            raise
        self._first: Sample | None = None
        self._last: Sample | None = None

    def start(self, request: RunRequest, run_id: str = "") -> None:
        self._machine.identity.must_see(request.target)
        target = resolve(request.target, request.caller)
        self._last = None
        self._machine.attach(target, request.selection)
        try:
            method = self._describe(request.target, request.selection, self._machine.selected_hooks)
            described = target.as_evidence(request.target, self._machine.identity.processes)
            self._method = replace(method, no_cost=self._machine.no_cost, target=described)
            if self.ring:
                self.ring.know(self._machine.run, run_id)
            self._first = self._machine.begin()
        except BaseException:
            self._machine.detach()
            raise

    def target_has_ended(self) -> bool:
        return self._method.targeted and not self._machine.target_processes()

    def stop(self) -> None:
        try:
            self._last = self._machine.end()
            for module, why in self._last.unread.items():
                log.warning("module %s is missing from the evidence: %s", module, why)
        finally:
            self._machine.detach()

    def evidence(self, run: Run) -> Evidence:
        if self._first is None:
            raise RuntimeError("evidence was asked for before a run was started")
        last = self._last or self._machine.sample()
        return build(run, self._method, self._first, last, self._machine.names(self._first, last))

    def status(self) -> CollectorStatus:
        hooks = [
            HookStatus(
                hook.name,
                ", ".join(self._machine.sources_of(hook.name, targeted=True)),
                self._machine.absent_hook(hook.name, targeted=True),
            )
            for hook in self._hooks.values()
            if not hook.raised_on
        ]
        hooks = [hook for hook in hooks if hook.source or hook.reason]  # other hooks are not needed here
        details = {
            "kernel": os.uname().release,
            "bcc": self._machine.unit.loaded.bcc_version,
            "headers": f"BTF ({self._machine.unit.header_tree})",
        }
        causes = (*LOSS_CAUSES, PROGRAMS_SKIPPED)
        return CollectorStatus("ebpf", list(self._status.values()), hooks, details=details, loss_causes=causes)

    def close(self) -> None:
        self._machine.close()

    def _examine_all(self, *, targeted: bool) -> dict[str, ModuleStatus]:
        return {module.name: self._examine(module, targeted=targeted) for module in self._asked}

    def _examine(self, module: Module, *, targeted: bool) -> ModuleStatus:
        """Which metrics of a module can be measured with or without a target, from what, and why the others cannot."""
        reason = self._machine.unit.absent_modules.get(module.name, "")
        if reason:
            return ModuleStatus(module.name, "down", reason, options=option_states(module, self._options, "down"))
        unavailable, sources = {}, {}
        for metric in dict.fromkeys((*module.reported, *module.per_process)):
            lacking = self._lacking(module, metric, targeted=targeted)
            if isinstance(metric, Procfs) and not lacking:
                sources[metric.name] = f"procfs:/proc/{metric.field}"
            elif lacking:
                unavailable[reported_key(metric)] = lacking
            else:
                hooks = module.hooks_of(metric)
                listed = (self._machine.sources_of(hook, targeted=targeted) for hook in hooks)
                found = dict.fromkeys(source for sources_of_hook in listed for source in sources_of_hook)
                sources[reported_key(metric)] = ", ".join((*source_of(metric.needs), *found))
        if module.explain_waits:
            unavailable |= self._machine.unknown_of_waits
        optional = not_asked_for(module, self._hooks, self._options)
        state: State = "up" if unavailable.keys() <= optional.keys() else "degraded" if sources else "down"
        why = "; ".join(dict.fromkeys(unavailable.values())) if state == "down" else ""
        options = option_states(module, self._options, state)
        return ModuleStatus(module.name, state, why, sources, unavailable, options)

    def _lacking(self, module: Module, metric: Metric, *, targeted: bool) -> str:
        if isinstance(metric, Procfs) and not proc_counters([metric.field]):
            return f"this kernel keeps no {metric.field.replace(':', ' ')} in /proc"
        missing = (self._machine.absent_hook(hook, targeted=targeted) for hook in module.hooks_of(metric))
        facts = [m.needs for m in (metric, *module.sources_of(metric)) if m.needs]
        return "; ".join(dict.fromkeys(filter(None, (*missing, *map(self._machine.lacks, facts)))))

    def _unavailable_in_target(self, module: Module) -> dict[str, str]:
        """Reported key → reason, for metrics that the programs and libraries of the run's target do not allow."""
        unavailable = self._machine.unavailable_in_target
        lacking = {
            m: [unavailable[hook] for hook in module.hooks_of(m) if hook in unavailable] for m in module.reported
        }
        return {reported_key(metric): reasons[0] for metric, reasons in lacking.items() if reasons}

    def _describe(self, target: Target, selection: Selection, attached: Collection[str]) -> Method:
        """How a run of `selection` is measured, with programs at the hooks `attached`."""
        statuses = self._statuses[target.kind != "machine"]
        asked = {name: status for name, status in statuses.items() if selection.collects(name)}
        modules = tuple(m for m in self._machine.modules if m.name in asked and asked[m.name].state != "down")
        optional = {
            m.name: not_asked_for(m, self._hooks, selection.probes)
            | self._unavailable_in_target(m)
            | _needs_target(m, target, modules)
            for m in modules
        }
        chosen = self._machine.programs.chosen
        return Method(
            modules=modules,
            sources={
                name: {key: source for key, source in asked[name].sources.items() if key not in absent}
                for name, absent in optional.items()
            },
            unavailable={name: absent | asked[name].unavailable for name, absent in optional.items()},
            absent={status.name: status.reason for status in asked.values() if status.state == "down"},
            program_sources={hook: str(chosen[hook].source) for hook in attached},
            cpus=os.cpu_count() or 1,
            entry=self._entry,
            sample_interval=selection.sample_interval,
            raised_on={hook.name: hook.raised_on for hook in self._hooks.values() if hook.raised_on},
            target=target,
        )


def _needs_target(module: Module, target: Target, modules: Collection[Module]) -> dict[str, str]:
    """Reported key → reason, for metrics that this run lacks because of its target, or of the `modules` it has."""
    known = any(m.explain_waits for m in modules)
    why = "" if known else f"idle threads are known only with the module {EXPLAINS_WAITS.name}"
    return {
        reported_key(metric): metric.needs_target if target.kind == "machine" else why
        for metric in module.reported
        if metric.needs_target and (target.kind == "machine" or why)
    }
