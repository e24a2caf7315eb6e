"""What this kernel tells as it happens: each program that a target starts, and exactly how many were held back."""

import subprocess
import time

import pytest

from chainbench_agent.collector.ebpf import EbpfCollector
from chainbench_agent.evidence.model import Target
from chainbench_agent.loading import told
from chainbench_agent.probes import CATALOG, HOOKS

pytestmark = pytest.mark.bpf


@pytest.fixture(scope="module")
def telling(cache_dir):
    """All modules, with what tells."""
    collector = EbpfCollector(CATALOG, HOOKS, cache_dir, events=True)
    yield collector
    collector.close()


def heard(collector):
    events = []
    while found := collector.ring.poll(200):
        events += found
    return events


def shell(collector, script, *, listens=True):
    """What was told, and the evidence, of a shell that waits until the run is on."""
    waiting = ["sh", "-c", f"read go; {script}"]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE) as process:
        collector.ring.listen(on=listens)
        collector.start(Target(kind="pid", pid=process.pid))
        try:
            process.communicate(b"\n")
        finally:
            collector.stop()
    return process.pid, heard(collector)


def test_every_program_is_told(telling, run):
    """53 of them, in order, with when, who and what; and no other process's."""
    before, dropped = time.monotonic_ns(), telling.ring.dropped()
    _, events = shell(telling, "for i in $(seq 53); do /bin/true; sleep 0.02; done")
    execs = [event for event in events if event.name == "exec.exec" and event.command == "true"]

    assert telling.evidence(run).as_json()["exec"]["exec_count"] == 53 * 2 + 1
    assert telling.ring.dropped() == dropped
    assert len(execs) == len({event.pid for event in execs}) == 53
    assert [event.at_ns for event in events] == sorted(event.at_ns for event in events)
    assert all(before < event.at_ns < time.monotonic_ns() for event in execs)
    assert all(event.details == {"pid_before": event.pid} for event in execs)


def test_what_is_held_back_is_counted(telling, run):
    """Faster than is told: those that were told and those that were not are all there were, exactly."""
    before = telling.ring.dropped()
    _, events = shell(telling, "for i in $(seq 1009); do /bin/true; done")
    execs = [event for event in events if event.name == "exec.exec"]
    dropped = {cause: count - before[cause] for cause, count in telling.ring.dropped().items()}

    assert len(execs) + sum(dropped.values()) == telling.evidence(run).as_json()["exec"]["exec_count"] == 1010
    assert dropped["without_room"] == 0
    assert len(execs) >= told.PER_SECOND


def test_nothing_is_told_to_nobody(telling, run):
    """Handlers count as ever."""
    before = telling.ring.dropped()
    _, events = shell(telling, "for i in $(seq 53); do /bin/true; done", listens=False)

    assert events == []
    assert telling.ring.dropped() == before
    assert telling.evidence(run).as_json()["exec"]["exec_count"] == 54


def test_without_events_nothing_of_them_is_loaded(collector):
    assert collector.ring is None
    assert not {"cb_told", "cb_telling", "cb_listening"} & collector._machine._maps.keys()
