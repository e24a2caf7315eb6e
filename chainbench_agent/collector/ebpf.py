"""The measured backend: a run is two samples of this machine's kernel."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from chainbench_agent.collector.base import CollectorStatus, HookStatus, ModuleStatus, State
from chainbench_agent.evidence.build import Method, build
from chainbench_agent.evidence.keys import reported_key
from chainbench_agent.evidence.model import Evidence, Run, Target
from chainbench_agent.evidence.sample import Sample
from chainbench_agent.kernel.accounts import proc_counters
from chainbench_agent.kernel.machine import Machine
from chainbench_agent.kernel.namespaces import Peer
from chainbench_agent.kernel.target import resolve
from chainbench_agent.spec import Hook, Metric, Module, Procfs


class EbpfCollector:
    """See base.Collector.  Raises SetupError at construction when eBPF cannot be used here."""

    def __init__(self, modules: Iterable[Module], hooks: Iterable[Hook], cache_dir: Path) -> None:
        self._asked = tuple(modules)
        self._hooks = tuple(hooks)
        self._machine = Machine(self._asked, self._hooks, cache_dir)
        self._status = {module.name: self._examine(module) for module in self._asked}
        self._method = self._describe()
        self._first: Sample | None = None
        self._last: Sample | None = None

    def start(self, target: Target, peer: Peer | None = None) -> None:
        resolved = resolve(target, peer)
        self._last = None
        self._method = replace(self._method, target=target)
        self._machine.attach(resolved)
        try:
            first = self._machine.sample()  # nothing counts yet, so this is how things stand when the run begins
            self._first = replace(first, at_ns=self._machine.begin())
        except BaseException:
            self._machine.detach()
            raise

    def gone(self) -> bool:
        return self._method.targeted and not self._machine.target_processes()

    def stop(self) -> None:
        ended_ns = self._machine.end()
        try:
            self._last = replace(self._machine.sample(), at_ns=ended_ns)
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
                ", ".join(self._machine.sources_of(hook.name)),
                self._machine.absent_hook(hook.name),
            )
            for hook in self._hooks
            if not hook.raised_on
        ]
        hooks = [hook for hook in hooks if hook.source or hook.reason]  # the others are not needed here
        details = {
            "kernel": os.uname().release,
            "bcc": self._machine.unit.loaded.bcc_version,
            "headers": f"BTF ({self._machine.unit.header_tree})",
        }
        return CollectorStatus("ebpf", list(self._status.values()), hooks, details=details)

    def close(self) -> None:
        self._machine.close()

    def _examine(self, module: Module) -> ModuleStatus:
        """Which of a module's metrics can be measured, from what, and why not the others."""
        reason = self._machine.unit.absent_modules.get(module.name, "")
        if reason:
            return ModuleStatus(module.name, "down", reason)
        unavailable, sources = {}, {}
        for metric in module.reported:
            lacking = self._lacking(module, metric)
            if isinstance(metric, Procfs) and not lacking:
                sources[metric.name] = f"procfs:/proc/{metric.field}"
            elif lacking:
                unavailable[reported_key(metric)] = lacking
            else:
                hooks = module.hooks_of(metric)
                found = dict.fromkeys(source for hook in hooks for source in self._machine.sources_of(hook))
                sources[reported_key(metric)] = ", ".join(found)
        state: State = "up" if not unavailable else "degraded" if sources else "down"
        why = "; ".join(dict.fromkeys(unavailable.values())) if state == "down" else ""
        return ModuleStatus(module.name, state, why, sources, unavailable)

    def _lacking(self, module: Module, metric: Metric) -> str:
        if isinstance(metric, Procfs) and not proc_counters([metric.field]):
            return f"this kernel keeps no {metric.field.replace(':', ' ')} in /proc"
        missing = map(self._machine.absent_hook, module.hooks_of(metric))
        facts = [m.needs for m in (metric, *module.sources_of(metric)) if m.needs]
        return "; ".join(dict.fromkeys(filter(None, (*missing, *map(self._machine.lacks, facts)))))

    def _describe(self) -> Method:
        up = [status for status in self._status.values() if status.state != "down"]
        chosen = self._machine.programs.chosen
        return Method(
            modules=tuple(m for m in self._machine.modules if self._status[m.name].state != "down"),
            sources={status.name: status.sources for status in up},
            unavailable={status.name: status.unavailable for status in up},
            absent={s.name: s.reason for s in self._status.values() if s.state == "down"},
            program_sources={hook: str(program.source) for hook, program in chosen.items()},
            cpus=os.cpu_count() or 1,
        )
