"""The maps of one module go away in the middle of a run: it is missing, and everything else is measured."""

import os
import subprocess
from contextlib import contextmanager, nullcontext

import pytest

from chainbench_agent.evidence.model import Target
from chainbench_agent.probes import CATALOG

pytestmark = pytest.mark.bpf

LOOKUP = "its figures could not be read: map lookup: Invalid argument"
WHY = {"exec": LOOKUP.replace("map", "map batch")}
MAPS = {module.name: f"cb_{module.name}" for module in CATALOG} | {"cpu": "cpu_idle_span", "exec": "exec_commands"}
"""Module → one of those that are its alone, of each sort."""
PROGRAMS = 53 + 1  # seq


@contextmanager
def gone(collector, name):
    """Another file has the map's number meanwhile, so that nothing else gets it."""
    fd = collector._machine._maps[name].fd
    kept, null = os.dup(fd), os.open(os.devnull, os.O_RDWR)
    os.dup2(null, fd)
    try:
        yield
    finally:
        os.dup2(kept, fd)
        os.close(kept)
        os.close(null)


@pytest.fixture
def measured(collector, run):
    """`measured(without)` → the evidence as JSON, in the run's course and of all of it, read in the context `without`.

    Of a shell that starts PROGRAMS.
    """

    def measure(without):
        script = "read go; for i in $(seq 53); do /bin/true; done"
        with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE) as process:
            collector.start(Target(kind="pid", pid=process.pid))
            with without:
                course = collector.evidence(run)
                process.communicate(b"\n")
                collector.stop()
        return course.as_json(), collector.evidence(run).as_json()

    return measure


@pytest.mark.parametrize(("module", "name"), MAPS.items())
def test_its_map_is_gone_in_mid_run(collector, measured, module, name):
    """It is absent with the reason, in the run's course too, no other is; the next run has all of them again."""
    found, (_, again) = measured(gone(collector, name)), measured(nullcontext())
    sections = {one.section_key for one in CATALOG if one.name != module}

    for evidence in found:
        with_it = {module, "ledger"} if module == "offcpu" else {module}
        assert evidence["available"] is True
        assert evidence["unavailable"] == dict.fromkeys(with_it, WHY.get(module, LOOKUP))
        assert {one.section_key for one in CATALOG} & evidence.keys() == sections
    assert module == "exec" or found[1]["exec"]["exec_count"] == PROGRAMS
    assert again["unavailable"] == {}
    assert again["exec"]["exec_count"] == PROGRAMS


@pytest.mark.parametrize("name", ["memory_span", "cb_memory"])
def test_the_cpus_counters(collector, measured, name):
    """They are the memory module's: what they need is gone, and the module is, where this machine has any."""
    _, whole = measured(gone(collector, name))

    expected = {"memory": LOOKUP} if name == "cb_memory" or collector._machine.unit.counters else {}
    assert whole["unavailable"] == expected
    assert whole["exec"]["exec_count"] == PROGRAMS
