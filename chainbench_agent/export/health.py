"""The agent's own metrics, `chainbench_agent_*`: its version, its modules and why some do not collect, its cost, and
its processes.  The number of series is limited by the number of modules, hooks and causes of loss.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Info, ProcessCollector, Summary, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from chainbench_agent.evidence.self_check import INVARIANTS
from chainbench_agent.evidence.totals import Totals
from chainbench_agent.export.series import Family

PREFIX = "chainbench_agent"
LONGEST_REASON = 200

INFO = Family(f"{PREFIX}_info", "info", "The version, and whether this agent measures (ebpf) or not (mock).")
BUILD = Family(f"{PREFIX}_build_info", "info", "What the agent is made of and runs on.")
BACKEND = Family(f"{PREFIX}_backend", "gauge", "What collects, and why it is not ebpf.")
MODULE_UP = Family(f"{PREFIX}_module_up", "gauge", "Whether a module collects; degraded: some metrics are missing.")
UNAVAILABLE = Family(
    f"{PREFIX}_module_unavailable_metrics", "gauge", "How many metrics of a module this kernel does not offer."
)
RUN_ACTIVE = Family(f"{PREFIX}_run_active", "gauge", "Whether a run is active, from /start to the answer of /stop.")
LOST = Family(
    f"{PREFIX}_lost_events_total", "counter", "Events that happened but are not in the numbers, in all runs, by cause."
)
PROGRAM_RUNS = Family(
    f"{PREFIX}_program_runs_total", "counter", "Runs of each of our BPF programs, by the kernel's account."
)
PROGRAM_SECONDS = Family(
    f"{PREFIX}_program_seconds_total", "counter", "Time in each of our BPF programs, by the kernel's account."
)
VIOLATIONS = Family(
    f"{PREFIX}_self_check_violations_total",
    "counter",
    "Comparisons within an evidence that did not hold, in all runs, by invariant; each is a fault of the agent.",
)
STORE_BYTES = Family(f"{PREFIX}_store_bytes", "gauge", "Size of the SQLite database of the runs, with its log.")
STORE_RUNS = Family(f"{PREFIX}_store_runs", "gauge", "Stored runs that have ended, counted when the last one ended.")
SCRAPE = Family(f"{PREFIX}_scrape_duration_seconds", "summary", "Time to answer a scrape, of those before this one.")
PROCESS = Family(f"{PREFIX}_process_*", "gauge", "Memory, CPU time and descriptors of each process of the agent.")
LOG_DROPPED = Family(
    f"{PREFIX}_log_records_dropped_total", "counter", "Log records that could not be written to stderr."
)
RESPONSES_CUT = Family(f"{PREFIX}_responses_cut_total", "counter", "Responses that were not sent whole, by cause.")

HEALTH: tuple[tuple[Family, tuple[str, ...]], ...] = (
    (INFO, ("version", "backend")),
    (BUILD, ("version", "python", "kernel", "bcc")),
    (SCRAPE, ()),
    (PROCESS, ("process",)),
    (LOG_DROPPED, ()),
    (RESPONSES_CUT, ("cause",)),
    (RUN_ACTIVE, ()),
    (BACKEND, ("backend", "reason")),
    (MODULE_UP, ("module", "state", "reason")),
    (UNAVAILABLE, ("module",)),
    (LOST, ("cause",)),
    (VIOLATIONS, ("invariant",)),
    (STORE_BYTES, ()),
    (STORE_RUNS, ()),
    (PROGRAM_RUNS, ("hook", "source")),
    (PROGRAM_SECONDS, ("hook", "source")),
)
"""Each family with its labels, in the order of the exposition."""

Points = Iterable[tuple[Sequence[str], float]]
"""The values of a family's labels, and the number."""


class Module(Protocol):
    """A module's state (model.status.ModuleStatus); `off`: it was not asked for."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def unavailable(self) -> Mapping[str, str]: ...


class Collector(Protocol):
    """The collector's state (model.status.CollectorStatus)."""

    @property
    def backend(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def modules(self) -> Sequence[Module]: ...
    @property
    def loss_causes(self) -> Sequence[str]: ...


class Store(Protocol):
    """The size of the store (model.status.StoreStatus); None without a store, or where it is not known."""

    @property
    def runs(self) -> int | None: ...
    @property
    def bytes(self) -> int | None: ...


class Status(Protocol):
    """The state of the run, the collector and the store (runs.running.RunsStatus)."""

    @property
    def phase(self) -> str: ...
    @property
    def collector(self) -> Any: ...
    @property
    def store(self) -> Store: ...


class AgentRegistry(CollectorRegistry):
    """The families that are not about a run: the agent's version, its processes, and how long scrapes take."""

    def __init__(
        self,
        version: str,
        backend: str,
        details: Mapping[str, str],
        processes: Callable[[], Mapping[str, int]],
        counts: Callable[[], Mapping[Family, Points]] = dict,
    ) -> None:
        """`details`: of the collector's status.  `processes`: role → pid of each process of the agent.

        `counts`: the daemon's own counters, by families of HEALTH.
        """
        super().__init__()
        build = {name: details.get(name, "") for name in ("kernel", "bcc")}
        self._info(INFO, {"version": version, "backend": backend})
        self._info(BUILD, {"version": version, "python": platform.python_version(), **build})
        disable_created_metrics()  # type: ignore[no-untyped-call]  # process_start_time_seconds says it already
        self.scrape_duration = Summary(SCRAPE.name, SCRAPE.help, registry=self)
        self.register(_Processes(processes))
        self.register(_Counts(counts))

    def _info(self, family: Family, values: dict[str, str]) -> None:
        Info(family.name.removesuffix("_info"), family.help, registry=self).info(values)


class _Processes:
    """Prometheus' process metrics for each process of the agent, with the label `process`."""

    def __init__(self, processes: Callable[[], Mapping[str, int]]) -> None:
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        found: dict[str, Metric] = {}
        for role, pid in self._processes().items():
            for family in ProcessCollector(PREFIX, partial(int, pid), registry=None).collect():
                of_all = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    of_all.add_sample(sample.name, {"process": role}, sample.value)
        yield from found.values()


class _Counts:
    """The daemon's own counters."""

    def __init__(self, counts: Callable[[], Mapping[Family, Points]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        counts = self._counts()
        yield from (_filled(family, labels, counts[family]) for family, labels in HEALTH if family in counts)


def health_families(status: Status, totals: Totals) -> Iterator[Metric]:
    """The families that change with the runs.  A figure that is not known (a loss, a size) is absent, not zero."""
    collector: Collector = status.collector
    asked = [module for module in collector.modules if module.state != "off"]
    causes = dict.fromkeys((*collector.loss_causes, *totals.lost))
    points: dict[Family, Points] = {
        RUN_ACTIVE: [((), int(status.phase != "idle"))],
        BACKEND: [((collector.backend, _short(collector.reason)), 1)],
        MODULE_UP: [((m.name, m.state, _short(m.reason)), int(m.state != "down")) for m in asked],
        UNAVAILABLE: [((m.name,), len(m.unavailable)) for m in asked if m.state != "down"],
        LOST: [((cause,), totals.lost.get(cause, 0)) for cause in causes],
        VIOLATIONS: [((name,), totals.violations.get(name, 0)) for name in INVARIANTS],
        STORE_BYTES: _if_known(status.store.bytes),
        STORE_RUNS: _if_known(status.store.runs),
        PROGRAM_RUNS: totals.program_runs.items(),
        PROGRAM_SECONDS: [(program, ns / 1e9) for program, ns in totals.program_ns.items()],
    }
    for family, labels in HEALTH:
        if family in points:
            yield _filled(family, labels, points[family])


def _if_known(value: float | None) -> Points:
    return [] if value is None else [((), value)]


def _filled(family: Family, labels: Sequence[str], points: Points) -> Metric:
    make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = make(family.name, family.help, labels=labels)
    for values, value in points:
        metric.add_metric(values, value)
    return metric


def _short(reason: str) -> str:
    """The first line: the reason why a module does not compile is all of the compiler's output."""
    return reason.partition("\n")[0][:LONGEST_REASON]
