"""Prometheus' own linter, over the whole catalogue."""

import os
import subprocess
from datetime import UTC, datetime

import pytest

from chainbench_agent.collector.mock import MockCollector
from chainbench_agent.evidence.model import Run
from chainbench_agent.evidence.report import Report
from chainbench_agent.evidence.totals import Program, Totals
from chainbench_agent.export.health import AgentRegistry
from chainbench_agent.export.prometheus import Exporter
from chainbench_agent.probes import CATALOG

GIVEN = {
    'chainbench_biolatency_microseconds use base unit "seconds" instead of "microseconds"',
    'chainbench_runqlat_microseconds use base unit "seconds" instead of "microseconds"',
    'chainbench_duration_milliseconds use base unit "seconds" instead of "milliseconds"',
    'chainbench_offcpu_milliseconds_total use base unit "seconds" instead of "milliseconds"',
    'chainbench_offcpu_milliseconds_total non-counter metrics should not have "_total" suffix',
}
"""All that promtool says of the names that were given to us; of ours it must say nothing."""


@pytest.mark.needs("promtool")
def test_promtool_complains_only_of_the_names_given_to_us(make_view):
    labels = {"impl": "python", "variant": "numpy", "commit": "abc123", "dataset": "d1"}
    started_at = datetime(2026, 11, 22, tzinfo=UTC)
    run = Run(id="1", machine="host", started_at=started_at, duration_ms=1000, ended_by="stop", **labels)
    report = Report(**labels, baseline_ms=1500, optimized_ms=1200, gain_pct=20)
    program = Program("sched_switch", "raw_tracepoint:sched_switch")
    totals = Totals({"keys_full": 1}, {program: 1}, {program: 1})
    view = make_view(MockCollector("", "", CATALOG).evidence(run), reports=[report], totals=totals)
    registry = AgentRegistry("0.1.0", "mock", {}, lambda: {"worker": os.getpid()})
    body, _ = Exporter(CATALOG, registry).render(view, "")

    linter = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)

    assert set(linter.stderr.decode().splitlines()) == GIVEN
    assert linter.returncode == 3  # it read everything, and complained
