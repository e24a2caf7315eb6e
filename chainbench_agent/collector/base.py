"""Defines the interface of a collector, which eBPF and mock data implement."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from chainbench_agent.catalog import Hook, Module
from chainbench_agent.evidence.metric_keys import reported_key
from chainbench_agent.evidence.model import Evidence, Run
from chainbench_agent.kernel.reading.ring_buffer import Ring
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.model.status import CollectorStatus, State


def option_states(module: Module, loaded: Collection[str], state: State) -> dict[str, State]:
    """Option → `state` if it is among the `loaded` names, else off."""
    return {option: state if f"{module.name}:{option}" in loaded else "off" for option in module.options}


def not_asked_for(module: Module, hooks: Mapping[str, Hook], asked: Collection[str]) -> dict[str, str]:
    """Reported key → reason, for metrics of options that are not among those `asked` for."""
    needs = {m: [hooks[name].option for name in module.hooks_of(m)] for m in module.reported}
    lacks = {reported_key(m): [o for o in options if o and o not in asked] for m, options in needs.items()}
    return {key: f"not asked for: name {lacking[0]} in the run's probes" for key, lacking in lacks.items() if lacking}


class Collector(Protocol):
    """Collects for one run at a time; the caller (runs/lifecycle.py) ensures that."""

    @property
    def ring(self) -> Ring | None:
        """Where the kernel side emits events; None if it emits none."""

    def start(self, request: RunRequest, run_id: str = "") -> None:
        """Begin to collect what is asked for: attach, take the first sample.  `run_id`: for the run's events.

        Raises InputError if there is no such target.
        """

    def evidence(self, run: Run) -> Evidence:
        """The evidence until now; collection goes on."""

    def target_has_ended(self) -> bool:
        """Whether every process of the target has ended, so that nothing more can happen."""

    def stop(self) -> None:
        """End collecting: take the last sample, detach.  `evidence` then answers from that sample."""

    def status(self) -> CollectorStatus:
        """Which modules work, from which sources, and why the others do not."""

    def close(self) -> None:
        """Release everything; the collector cannot be used again."""
