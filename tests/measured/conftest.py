"""Known workloads against this very kernel: a prime number of things happens, and the evidence must say so."""

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from chainbench_agent.collector.ebpf import EbpfCollector
from chainbench_agent.evidence.model import Run
from chainbench_agent.probes import CATALOG, HOOKS

RUN = Run(id="test", machine="test", started_at=datetime(2026, 1, 1, tzinfo=UTC), duration_ms=0, ended_by="stop")


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("headers")


@pytest.fixture(scope="session")
def collector(cache_dir):
    """All modules, loaded once."""
    collector = EbpfCollector(CATALOG, HOOKS, cache_dir)
    yield collector
    collector.close()


@pytest.fixture
def measure(collector):
    """`measure(workload)` → the evidence, as JSON, of a run in which the workload ran once."""

    def during(workload):
        collector.start()
        try:
            workload()
        finally:
            collector.stop()
        return collector.evidence(RUN).as_json()

    return during


@pytest.fixture
def python():
    """`python(code)` runs code in another process, because the agent's own is never counted."""

    def run(code):
        subprocess.run([sys.executable, "-c", code], check=True)

    return run
