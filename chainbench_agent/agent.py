"""Builds the agent from its settings: the one place where collector, runs, store and exporter meet."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from chainbench_agent.catalog.selection import Selection
from chainbench_agent.collector import open_collector
from chainbench_agent.collector.base import Collector
from chainbench_agent.export.health import LOG_DROPPED, AgentRegistry, Points
from chainbench_agent.export.prometheus import Exporter
from chainbench_agent.export.series import Family
from chainbench_agent.host.environment import VERSION, environment
from chainbench_agent.logs.writer import log_status
from chainbench_agent.probes import CATALOG
from chainbench_agent.runs.active_run_record import ActiveRunRecord
from chainbench_agent.runs.archive import Archive
from chainbench_agent.runs.lifecycle import Runs
from chainbench_agent.settings import Settings
from chainbench_agent.store import open_store
from chainbench_agent.store.base import Store

OpenCollector = Callable[[Settings], Collector]
Counts = Callable[[], Mapping[Family, Points]]


@dataclass(frozen=True, slots=True)
class Agent:
    """Everything but the HTTP interface: what a server, a command or a plug-in starts runs with."""

    collector: Collector
    store: Store
    runs: Runs
    exporter: Exporter
    default_selection: Selection
    """The selection of a run whose request names nothing."""

    def metrics(self, accept: str) -> tuple[Sequence[bytes], str]:
        """The exposition for an Accept header, in parts, and its content type."""
        return self.exporter.render_parts(self.runs, accept)

    def close(self) -> None:
        """Finish the run that is on, and release the collector and the store."""
        self.runs.shutdown()
        self.collector.close()
        self.store.close()


def this_process() -> dict[str, int]:
    return {"agent": os.getpid()}


def build_agent(
    settings: Settings,
    open_collector: OpenCollector = open_collector,
    *,
    record: ActiveRunRecord | None = None,
    processes: Callable[[], Mapping[str, int]] = this_process,
    counts: Counts = dict,
) -> Agent:
    """Open the store and the collector, and put the agent together.

    `record` outlives a process that is killed in a run; `processes`: role → pid, of all that the agent consists of;
    `counts`: what a server counts of itself.  AgentError if store or collector cannot be opened.
    """
    store = open_store(settings)
    try:
        collector = open_collector(settings)
    except BaseException:
        store.close()
        raise
    found = collector.status()
    environment_of_run = partial(environment, found.details)
    archive = Archive(store, environment_of_run, settings.checkpoint_s, settings.max_kept_label_sets)
    archive.take_over(record or ActiveRunRecord())
    runs = Runs(collector, settings.machine, archive=archive)
    registry = AgentRegistry(VERSION, found.backend, found.details, processes, partial(_all_counts, counts))
    default_selection = Selection(settings.run_probes, settings.sample_interval)
    return Agent(collector, store, runs, Exporter(CATALOG, registry), default_selection)


def _all_counts(counts: Counts) -> Mapping[Family, Points]:
    return {LOG_DROPPED: [((), log_status().dropped)], **counts()}
