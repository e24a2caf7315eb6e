"""The processes that did most, and the others by subtraction: the parts are always the whole."""

import pytest

from chainbench_agent.abi.process import Process
from chainbench_agent.catalog import Counter, Module
from chainbench_agent.evidence.top_processes import TOP, top_processes
from chainbench_agent.probes import CATALOG

MODULE = Module(
    name="work",
    question="Who works?",
    metrics=(
        Counter(name="idle", help=""),
        Counter(name="busy_ns", help="", per_process=True, reported=False),
        Counter(name="turns", help="", per_process=True),
    ),
)


def process(pid, busy_ns, turns, command="worker"):
    return Process(pid, command, {"work": {"busy_ns": busy_ns, "turns": turns}, "other": {"busy_ns": 10**9}})


def selected(*processes, busy_ns, turns, unavailable=()):
    return top_processes(
        MODULE, {"idle": 99, "busy_ns": busy_ns, "turns": turns}, processes, dict.fromkeys(unavailable)
    )


def test_figures_and_units():
    """Only the module's own, only those that are counted per process; nanoseconds become milliseconds."""
    assert selected(process(7, 1_500_001, 3), busy_ns=2_500_002, turns=5) == {
        "top_processes": [{"pid": 7, "command": "worker", "busy_ms": 1.500001, "turns": 3}],
        "other_processes": {"busy_ms": 1.000001, "turns": 2},
    }


def test_order():
    """Sorted by the first figure, the next ones, and the pid; processes that did nothing are not shown."""
    processes = [process(5, 10, 9), process(4, 20, 1), process(3, 10, 9), process(2, 10, 11), process(1, 0, 0),
                 process(6, 0, 1)]  # fmt: skip

    found = selected(*processes, busy_ns=50, turns=31)

    assert [one["pid"] for one in found["top_processes"]] == [4, 2, 3, 5, 6]
    assert found["other_processes"] == {"busy_ms": 0, "turns": 0}


@pytest.mark.parametrize("count", [0, 1, TOP, TOP + 1, 500])
def test_the_parts_are_the_whole(count):
    """Shown or not, with a record or without one."""
    processes = [process(pid, pid * 1_000, pid) for pid in range(1, count + 1)]
    recorded = count * (count + 1) // 2
    busy_ns, turns = 1_000 * recorded + 77_000, recorded + 13

    found = selected(*reversed(processes), busy_ns=busy_ns, turns=turns)

    shown = found["top_processes"]
    assert [one["pid"] for one in shown] == list(range(count, max(count - TOP, 0), -1))
    assert sum(one["turns"] for one in shown) + found["other_processes"]["turns"] == turns
    total_ms = sum(one["busy_ms"] for one in shown) + found["other_processes"]["busy_ms"]
    assert round(total_ms * 1e6) == busy_ns


def test_what_cannot_be_measured_is_left_out():
    """It is no zero, and it orders nothing."""
    found = selected(process(1, 0, 5), process(2, 0, 6), busy_ns=0, turns=11, unavailable=["busy_ms"])

    assert found == {
        "top_processes": [{"pid": pid, "command": "worker", "turns": turns} for pid, turns in ((2, 6), (1, 5))],
        "other_processes": {"turns": 0},
    }
    assert selected(process(1, 0, 0), busy_ns=0, turns=0, unavailable=["busy_ms", "turns"]) == {}


def test_a_module_without_such_figures():
    plain = Module(name="plain", question="?", metrics=(Counter(name="events", help=""),))

    assert top_processes(plain, {"events": 5}, [], {}) == {}


def test_its_keys_are_no_metrics():
    """A section has them next to its own keys."""
    keys = {metric.name for module in CATALOG for metric in module.metrics}
    assert not keys & {"top_processes", "other_processes"}
