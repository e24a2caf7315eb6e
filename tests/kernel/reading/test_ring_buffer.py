"""Records in the ring buffer, from a libbpf that hands over what it is given."""

import ctypes
import struct

import pytest

from chainbench_agent.bpf import libbpf
from chainbench_agent.kernel.reading.ring_buffer import KNOWN_RUNS, Ring
from chainbench_agent.loading.loader import MapFd
from chainbench_agent.probes import CATALOG

EXEC = [module for module in CATALOG if module.name == "exec"]


def record(run, pid=53):
    """As `struct cb_event_record` of probes/lib/events.h."""
    return struct.pack("=QQIIII16s", 1000, 7, 0, pid, run, 0, b"true")


@pytest.fixture
def ring(monkeypatch):
    """A ring with `waiting` records."""
    waiting = []

    def poll(ring, _timeout_ms):
        while waiting:
            data = ctypes.create_string_buffer(waiting.pop(0))
            ring(None, ctypes.addressof(data), len(data))

    monkeypatch.setattr(libbpf, "open_ring", lambda _fd, callback: callback)
    monkeypatch.setattr(libbpf, "poll_ring", poll)
    ring = Ring({"cb_event_records": MapFd(0, 0, 0, 0)}, EXEC)
    ring.waiting = waiting
    return ring


def test_the_run_that_an_event_happened_in(ring):
    """It is the run whose number the kernel wrote, whatever has begun since the event was emitted."""
    ring.know(1, "run-a")
    ring.waiting += [record(1), record(1)]
    ring.know(2, "run-b")
    ring.waiting += [record(2)]

    assert [event.run_id for event in ring.poll(0)] == ["run-a", "run-a", "run-b"]


def test_a_run_that_nobody_named(ring):
    """It has no id, and none of another run's."""
    ring.know(2, "run-b")
    ring.waiting += [record(1), record(3)]

    assert [(event.run_id, event.pid) for event in ring.poll(0)] == [(None, 53), (None, 53)]


def test_so_many_runs_are_known(ring):
    """An agent that lives for months keeps the last ones only."""
    for run in range(1, KNOWN_RUNS + 8):
        ring.know(run, f"run-{run}")
    ring.waiting += [record(run) for run in (7, 8, KNOWN_RUNS + 7)]

    assert [event.run_id for event in ring.poll(0)] == [None, "run-8", f"run-{KNOWN_RUNS + 7}"]
    assert len(ring._runs) == KNOWN_RUNS
