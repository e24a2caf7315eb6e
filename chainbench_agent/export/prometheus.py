"""/metrics: the remembered runs and the running one, in Prometheus' text format or in OpenMetrics.

Finished evidence never changes, so prometheus_client turns each run into text once, and a scrape is little
more than a join.  The lines of a family are the same in both formats; only its head differs.
"""

from __future__ import annotations

import operator
import re
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from chainbench_agent.catalog import Module
from chainbench_agent.evidence.model import Evidence, Labels
from chainbench_agent.evidence.report import Report
from chainbench_agent.evidence.totals import Totals
from chainbench_agent.export.families import (
    REPORT_FAMILIES,
    RUN_FAMILIES,
    RUNS,
    Families,
    identity,
    report_samples,
    result_samples,
    run_samples,
    without_samples,
)
from chainbench_agent.export.health import AgentRegistry, Status, health_families
from chainbench_agent.export.series import Family, catalog_families

EOF = b"# EOF\n"
_METADATA_LINES = 2  # HELP and TYPE

Lines = Mapping[str, bytes]
"""Family → its sample lines."""


class RememberedLabels(Protocol):
    """One label set: its latest evidence, and how often its runs ended how."""

    @property
    def labels(self) -> Labels: ...
    @property
    def evidence(self) -> Evidence | None: ...
    @property
    def results(self) -> Mapping[Any, int]: ...


class View(Protocol):
    """The part of the runs (runs/lifecycle.py) that the exporter reads; they limit how many are remembered."""

    @property
    def machine(self) -> str: ...

    def status(self) -> Status:
        """Whether a run is on, and what collects."""

    def totals(self) -> Totals:
        """The totals of the runs that ended."""

    def remembered(self) -> Sequence[RememberedLabels]:
        """Each label set that is remembered."""

    def reports(self) -> Sequence[Report]:
        """The reports of runners, oldest first."""

    def current(self) -> Evidence | None:
        """The evidence so far of the run that is on."""


@dataclass(frozen=True, slots=True)
class Exposition:
    """One of Prometheus' two text formats: its name in HTTP, and how a registry is written in it."""

    content_type: str
    encode: Callable[[Collector], bytes]
    end: bytes


PLAIN = Exposition(CONTENT_TYPE_PLAIN_0_0_4, generate_latest, b"")
OPENMETRICS = Exposition(openmetrics.CONTENT_TYPE_LATEST, openmetrics.generate_latest, EOF)


class Exporter:
    """Renders /metrics for the metrics of a catalogue.  `agent`: what is not about a run.  Thread-safe."""

    def __init__(self, catalog: Iterable[Module], agent: AgentRegistry) -> None:
        self._metrics = catalog_families(catalog)
        self._agent = agent
        families: tuple[Family, ...] = (RUNS, *RUN_FAMILIES, *REPORT_FAMILIES, *self._metrics)
        self._heads = {
            form: {f.name: form.encode(Families([without_samples(f)])).removesuffix(form.end) for f in families}
            for form in (PLAIN, OPENMETRICS)
        }
        self._finished: Mapping[Hashable, Lines] = {}
        self._totals = Totals()
        self._totals_lock = threading.Lock()
        self._running: tuple[Evidence, Lines] | None = None
        self._blocks: dict[str, tuple[tuple[bytes, ...], bytes]] = {}

    def render(self, view: View, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type.  `accept`: the request's Accept header, or empty."""
        parts, content_type = self.render_parts(view, accept)
        return b"".join(parts), content_type

    def render_parts(self, view: View, accept: str) -> tuple[list[bytes], str]:
        """The same in parts, of which those about finished runs are the same objects at each scrape.

        Slow clients that are served at the same time share them: together they are megabytes.
        """
        with self._agent.scrape_duration.time():
            form = preferred_format(accept)
            return self._render(view, form), form.content_type

    def _render(self, view: View, form: Exposition) -> list[bytes]:
        ended = view.totals()  # before current(): a run that ends in between must not count twice
        remembered, running = view.remembered(), view.current()
        results = result_samples(((runs.labels, runs.results) for runs in remembered), view.machine)
        finished: dict[str, list[bytes]] = {RUNS.name: [_lines(results)]}
        unfinished: Lines = {}
        for lines in self._current(view, remembered, running):
            if self._running and lines is self._running[1]:
                unfinished = lines
                continue
            for name, text in lines.items():
                finished.setdefault(name, []).append(text)
        health = Families(health_families(view.status(), self._never_less(ended.plus(running))))
        parts = [form.encode(registry).removesuffix(form.end) for registry in (self._agent, health)]
        blocks = self._joined(finished)
        for name, head in self._heads[form].items():
            texts = [text for text in (blocks.get(name, b""), unfinished.get(name, b"")) if text]
            parts += [head, *texts] if texts else []
        parts.append(form.end)
        return parts

    def _joined(self, finished: Mapping[str, Sequence[bytes]]) -> dict[str, bytes]:
        """The finished lines of each family in one piece, which is the previous scrape's where nothing has changed."""
        before, blocks = self._blocks, {}
        for name, texts in finished.items():
            known, block = before.get(name, ((), b""))
            same = len(known) == len(texts) and all(map(operator.is_, known, texts))
            blocks[name] = (tuple(texts), block if same else b"".join(texts))
        self._blocks = blocks
        return {name: block for name, (_, block) in blocks.items()}

    def _never_less(self, totals: Totals) -> Totals:
        """While a run stops, its part is missing for a moment; a counter must not fall for that."""
        with self._totals_lock:
            self._totals = totals.at_least(self._totals)
            return self._totals

    def _current(self, view: View, remembered: Iterable[RememberedLabels], running: Evidence | None) -> Iterable[Lines]:
        """The lines of each run and report, one per label set; what is finished is turned into text once."""
        current: dict[Hashable, Lines] = {}
        finished: dict[Hashable, Lines] = {}
        for evidence in (runs.evidence for runs in remembered):
            if evidence:
                run_id = evidence.run.id
                finished[run_id] = self._finished.get(run_id) or self._run(evidence)
                current[identity(evidence)] = finished[run_id]
        if running:
            known = self._running
            lines = known[1] if known and known[0] is running else self._run(running)
            self._running = running, lines
            current[identity(running)] = lines
        else:
            self._running = None
        for report in view.reports():
            finished[report] = self._finished.get(report) or _by_family(report_samples(report, view.machine))
            # without its scenario: the two that it is about are in its samples
            current[report.impl, report.variant, report.commit, report.dataset] = finished[report]
        self._finished = finished
        return current.values()

    def _run(self, evidence: Evidence) -> Lines:
        return _by_family(run_samples(self._metrics, evidence))


def _by_family(families: Iterable[Metric]) -> Lines:
    return {_scraped_name(family): _lines(family) for family in families}


def _scraped_name(family: Metric) -> str:
    """prometheus_client calls a counter by its name without `_total`."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def _lines(family: Metric) -> bytes:
    """The sample lines of a family, which are the same in both formats."""
    return generate_latest(Families([family])).split(b"\n", _METADATA_LINES)[_METADATA_LINES]


def preferred_format(accept: str) -> Exposition:
    """OpenMetrics where `accept` names it and does not prefer plain text."""
    openmetrics_quality = quality(accept, "application/openmetrics-text")
    if openmetrics_quality and openmetrics_quality >= quality(accept, "text/plain", "text/*", "*/*"):
        return OPENMETRICS
    return PLAIN


def quality(accept: str, *names: str) -> float:
    """The highest quality that an Accept header of any kind gives to one of these names; 0 without any."""
    best = 0.0
    for choice in accept.lower().split(","):
        name, *parameters = (part.strip() for part in choice.split(";"))
        if name in names:
            given = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
            best = max(best, float(given) if re.fullmatch(r"[01](\.\d{0,3})?", given) else 0.0)
    return best
