"""What this kernel tells as it happens: each program that a target starts, and exactly how many were held back.

Of the other kinds of events: test_event_kinds.py.
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
    """The one that tells, for all that measures."""
    return telling


def shell(collector, script, *, listens=True):
    """What was told, and the evidence, of a shell that waits until the run is on."""
    waiting = ["sh", "-c", f"read go; {script}"]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE) as process:
        collector.ring.listen(on=listens)
        collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
        try:
            process.communicate(b"\n")
        finally:
            collector.stop()
    return process.pid, heard(collector)


def test_every_program_is_told(collector, run):
    """53 of them, in order, with when, who and what; and no other process's."""
    before, dropped = time.monotonic_ns(), collector.ring.dropped()
    _, events = shell(collector, "for i in $(seq 53); do /bin/true; sleep 0.02; done")
    execs = [event for event in events if event.name == "exec.exec" and event.command == "true"]

    assert collector.evidence(run).as_json()["exec"]["exec_count"] == 53 * 2 + 1
    assert collector.ring.dropped() == dropped
    assert len(execs) == len({event.pid for event in execs}) == 53
    assert [event.at_ns for event in events] == sorted(event.at_ns for event in events)
    assert all(before < event.at_ns < time.monotonic_ns() for event in execs)
    assert all(event.details == {"pid_before": event.pid} for event in execs)


def test_what_is_held_back_is_counted(collector, run):
    """Faster than is told: those that were told and those that were not are all there were, exactly."""
    before = collector.ring.dropped()
    _, events = shell(collector, "for i in $(seq 1009); do /bin/true; done")
    execs = [event for event in events if event.name == "exec.exec"]
    dropped = {cause: count - before[cause] for cause, count in collector.ring.dropped().items()}

    assert len(execs) + sum(dropped.values()) == collector.evidence(run).as_json()["exec"]["exec_count"] == 1010
    assert dropped["without_room"] == 0
    assert len(execs) >= event_records.PER_SECOND


def test_what_the_ring_has_no_room_for_is_counted(cache_dir, monkeypatch, run):
    """83 programs while nobody reads, and a ring of one page: each is told or counted; then there is room again.

    All of them are fewer than may be told in a second, so none is held back.
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


def test_nothing_is_told_to_nobody(collector, run):
    """Handlers count as ever."""
    before = collector.ring.dropped()
    _, events = shell(collector, "for i in $(seq 53); do /bin/true; done", listens=False)

    assert events == []
    assert collector.ring.dropped() == before
    assert collector.evidence(run).as_json()["exec"]["exec_count"] == 54


def test_whenever_it_is_read_an_event_bears_its_own_run(collector):
    """23 programs of one run and 31 of the next, read when both are over."""
    collector.ring.listen(on=True)
    for run_id, count in (("run-a", 23), ("run-b", 31)):
        script = f"read go; for i in $(seq {count}); do /bin/true; done"
        with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE) as process:
            collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)), run_id=run_id)
            process.communicate(b"\n")
            collector.stop()
    runs = [event.run_id for event in heard(collector) if event.command == "true"]

    assert runs == ["run-a"] * 23 + ["run-b"] * 31


def test_without_events_nothing_of_them_is_loaded(cache_dir):
    modules = [module for module in CATALOG if module.name == "exec"]
    collector = EbpfCollector(modules, HOOKS, cache_dir)
    found = collector.ring, {"cb_told", "cb_telling", "cb_listening"} & collector._machine._maps.keys()
    collector.close()

    assert found == (None, set())


@pytest.mark.portable
def test_a_whole_agent(daemon, lock_order):
    """By GET /events: a lock-order violation, and of 1,011 programs each was told or announced as dropped."""
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
