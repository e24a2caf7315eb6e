"""If the maps of one module are closed in the middle of a run, it is absent, and everything else is measured."""

import os
import subprocess
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from disks import Disk

from chainbench_agent.evidence.model import Target
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.probes import CATALOG

pytestmark = pytest.mark.bpf

LOOKUP = "its figures could not be read: map lookup: Invalid argument"
WHY = {"exec": LOOKUP.replace("map", "map batch")}
MAPS = {module.name: f"cb_{module.name}" for module in CATALOG} | {"cpu": "cpu_idle_span", "exec": "exec_commands"}
"""Module → one map of each kind that only this module has."""
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

    The target is a shell that starts PROGRAMS.
    """

    def measure(without):
        script = "read go; for i in $(seq 53); do /bin/true; done"
        with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE) as process:
            collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
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
    """They are the memory module's: without a map of theirs the module is missing, and no other one."""
    _, whole = measured(gone(collector, name))

    assert whole["unavailable"] == {"memory": LOOKUP}
    assert whole["exec"]["exec_count"] == PROGRAMS


# --- From one run to the next -------------------------------------------------------------------------


@pytest.fixture
def disks(tmp_path):
    disks = [Disk(tmp_path / name) for name in "ab"]
    yield disks
    for disk in disks:
        disk.close()


@pytest.fixture
def read(collector, run):
    """`read(23, disk, …)` → the evidence as JSON of a run in which so many pages of each were read."""

    def measure(pages, *disks):
        read = "; ".join(f"dd if={disk.path} of=/dev/null bs=4096 count={pages} iflag=direct" for disk in disks)
        collector.start(RunRequest())
        try:
            subprocess.run(["sh", "-ec", read], check=True, capture_output=True)
        finally:
            collector.stop()
        return collector.evidence(run).as_json()

    return measure


def reads_of(evidence, disks):
    counts = {device["device"]: device["reads"] for device in evidence["biolatency"]["by_device"]}
    return [counts.get(disk.name, 0) for disk in disks]


def cannot_be_cleared(name, what="map update"):
    return f"its figures could not be cleared: {name}: {what}: Invalid argument"


NOT_CLEARED = {
    "biolatency_disks": {"biolatency": cannot_be_cleared("biolatency_disks")},
    "biolatency_disk_slots": {"biolatency": cannot_be_cleared("biolatency_disk_slots")},
    "io_queues": {"io": cannot_be_cleared("io_queues")},
    "exec_commands": {"exec": cannot_be_cleared("exec_commands", "map keys")},
}


@pytest.mark.parametrize("name", NOT_CLEARED)
def test_its_map_is_gone_when_the_next_run_starts(collector, read, disks, name):
    """It is absent with the reason, no other is; when the map is back nothing is in it of the runs before."""
    a, b = disks
    assert reads_of(read(23, a, b), disks) == [23, 23]
    with gone(collector, name):
        without = read(29, a)
    again = read(31, a, b)

    missing = NOT_CLEARED[name]
    assert without["unavailable"] == missing
    assert {one.section_key for one in CATALOG if one.name not in missing} <= without.keys()
    assert not missing.keys() & without.keys()
    assert again["unavailable"] == {}
    assert reads_of(again, disks) == [31, 31]


def test_the_map_of_the_disks_is_gone_when_the_next_run_starts(collector, read, disks):
    """The modules that count by disk are absent, and no others."""
    read(23, *disks)
    with gone(collector, "cb_disks"):
        without = read(29, *disks)
    again = read(31, *disks)

    why = without["unavailable"]
    assert why.keys() == {"biolatency", "io"}
    assert len(set(why.values())) == 1
    assert why["io"].startswith("its figures could not be cleared: cb_disks: ")
    assert again["unavailable"] == {}
    assert reads_of(again, disks) == [31, 31]


@pytest.mark.parametrize("name", ["cb_members", "cb_kept", "cb_requests"])
def test_a_map_of_all_is_gone_when_the_next_run_starts(collector, measured, name):
    """No run begins, and nothing stays of the attempt; the error names the map.  The next one is as ever."""
    before = set(Path("/proc/self/fd").iterdir())
    with gone(collector, name), pytest.raises(OSError, match=f"{name}: "):
        collector.start(RunRequest(target=Target(kind="pid", pid=os.getppid())))

    assert set(Path("/proc/self/fd").iterdir()) == before
    assert measured(nullcontext())[1]["exec"]["exec_count"] == PROGRAMS
