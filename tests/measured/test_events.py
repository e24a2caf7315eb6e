"""Events of this kernel: each program that a target starts, and exactly how many were held back.

For the other kinds of events see test_event_kinds.py.
"""

import json
import subprocess
import time

import pytest
import requests
from daemon import LABELS, LONG_S
from said import heard

from chainbench_agent.collector.ebpf import EbpfCollector
from chainbench_agent.evidence.model import Target
from chainbench_agent.loading import event_records
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.probes import CATALOG, HOOKS

pytestmark = pytest.mark.bpf

ORDER = "locks:order"
OPEN = "from chainbench_agent.collector import open_collector\n    return open_collector(settings)"


@pytest.fixture
def collector(telling):
    """The collector that emits events, for all tests here."""
    return telling


def shell(collector, script, *, listens=True):
    """The events and the evidence of a shell that waits until the run has started."""
    waiting = ["sh", "-c", f"read go; {script}"]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE) as process:
        collector.ring.listen(on=listens)
        collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
        try:
            process.communicate(b"\n")
        finally:
            collector.stop()
    return process.pid, heard(collector)


def test_every_program_is_emitted(collector, run):
    """All 53, in order, with time, process and name; and none of other processes."""
    before, dropped = time.monotonic_ns(), collector.ring.dropped()
    _, events = shell(collector, "for i in $(seq 53); do /bin/true; sleep 0.02; done")
    execs = [event for event in events if event.name == "exec.exec" and event.command == "true"]

    assert collector.evidence(run).as_json()["exec"]["exec_count"] == 53 * 2 + 1
    assert collector.ring.dropped() == dropped
    assert len(execs) == len({event.pid for event in execs}) == 53
    assert [event.at_ns for event in events] == sorted(event.at_ns for event in events)
    assert all(before < event.at_ns < time.monotonic_ns() for event in execs)
    assert all(event.details == {"pid_before": event.pid} for event in execs)


def test_events_that_are_held_back_are_counted(collector, run):
    """Above the limit, the events that were emitted and those that were held back are together exact."""
    before = collector.ring.dropped()
    _, events = shell(collector, "for i in $(seq 1009); do /bin/true; done")
    execs = [event for event in events if event.name == "exec.exec"]
    dropped = {cause: count - before[cause] for cause, count in collector.ring.dropped().items()}

    assert len(execs) + sum(dropped.values()) == collector.evidence(run).as_json()["exec"]["exec_count"] == 1010
    assert dropped["without_room"] == 0
    assert len(execs) >= event_records.PER_SECOND


def test_events_without_room_in_the_ring_are_counted(cache_dir, monkeypatch, run):
    """83 programs, a ring of one page and no reader: each is emitted or counted, and afterwards there is room again.

    They are fewer than the limit per second, so nothing is held back.
    """
    monkeypatch.setattr(event_records, "PAGES", 1)
    modules = [module for module in CATALOG if module.name == "exec"]
    collector = EbpfCollector(modules, HOOKS, cache_dir, events=event_records.Telling())
    try:
        _, events = shell(collector, "for i in $(seq 83); do /bin/true; done")
        lost = collector.ring.dropped()
        counted = collector.evidence(run).as_json()["exec"]["exec_count"]
        _, again = shell(collector, "for i in $(seq 7); do /bin/true; done")
        after = collector.ring.dropped()
    finally:
        collector.close()

    assert len(events) == 4096 // (8 + event_records._RECORD.size)
    assert len(events) + lost["without_room"] == counted == 84
    assert lost["held_back"] == 0
    assert len([event for event in again if event.command == "true"]) == 7
    assert after == lost


def test_nothing_is_emitted_without_a_listener(collector, run):
    """The handlers count as ever."""
    before = collector.ring.dropped()
    _, events = shell(collector, "for i in $(seq 53); do /bin/true; done", listens=False)

    assert events == []
    assert collector.ring.dropped() == before
    assert collector.evidence(run).as_json()["exec"]["exec_count"] == 54


def test_an_event_has_its_own_run_whenever_it_is_read(collector):
    """23 programs of one run and 31 of the next are read after both."""
    collector.ring.listen(on=True)
    for run_id, count in (("run-a", 23), ("run-b", 31)):
        script = f"read go; for i in $(seq {count}); do /bin/true; done"
        with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE) as process:
            collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)), run_id=run_id)
            process.communicate(b"\n")
            collector.stop()
    runs = [event.run_id for event in heard(collector) if event.command == "true"]

    assert runs == ["run-a"] * 23 + ["run-b"] * 31


def test_without_events_their_programs_are_not_loaded(cache_dir):
    modules = [module for module in CATALOG if module.name == "exec"]
    collector = EbpfCollector(modules, HOOKS, cache_dir)
    found = collector.ring, {"cb_told", "cb_telling", "cb_listening"} & collector._machine._maps.keys()
    collector.close()

    assert found == (None, set())


@pytest.mark.portable
def test_an_agent_emits_events_to_http_clients(daemon, lock_order):
    """GET /events emits a lock-order violation; each of 1,011 programs is emitted or announced as dropped."""
    settings = {"backend": "ebpf", "events": True, "probes": f"exec,locks,{ORDER}"}
    agent = daemon(OPEN, **settings)
    script = f"read go; {lock_order()} ab ba </dev/null; for i in $(seq 1009); do /bin/true; done"
    events = []

    def all_are_accounted_for():
        dropped = sum(event["count"] for event in events if event["name"] == "dropped")
        return len([event for event in events if event["name"] == "exec.exec"]) + dropped == 1011

    with (
        requests.get(f"{agent.url}/events", stream=True, timeout=LONG_S) as stream,
        subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as shell,
    ):
        run_id = agent.client.start(**LABELS, pid=shell.pid, probes=["exec", "locks", ORDER])["run_id"]
        shell.communicate(b"\n")
        evidence = agent.client.stop()
        for line in stream.iter_lines():
            if line.startswith(b"data: "):
                events.append(json.loads(line.removeprefix(b"data: ")))
            if all_are_accounted_for():
                break

    assert evidence["exec"]["exec_count"] == 1011
    assert evidence["locks"]["lock_order_violations"] == 1
    (violation,) = [event for event in events if event["name"] == "locks.order_violation"]
    assert (violation["run_id"], violation["command"]) == (run_id, "lock_order-cc")
