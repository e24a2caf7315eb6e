"""How long spin locks are held: a prime number of writes to an eventfd, each of which takes its lock once."""

import pytest

from chainbench_agent.catalog.selection import Selection

pytestmark = pytest.mark.bpf

OPTION = "locks:hold"
WRITES = """
import os, time
fd = os.eventfd(0)
began = time.monotonic_ns()
for _ in range(TIMES): os.eventfd_write(fd, 1)
print(time.monotonic_ns() - began)
"""


@pytest.fixture
def held(collector, targeted):
    """`held(times, interval)` → the section of a target that writes so often, how long it took, and what was lost."""
    (status,) = (module for module in collector.status().modules if module.name == "locks")

    def measured(times, interval=1):
        target = targeted(WRITES.replace("TIMES", str(times)))
        evidence = target.run(selection=Selection(("locks", OPTION), interval))
        return evidence["locks"], int(target.output), evidence["loss"]["total"]

    measured.absent = "spin_hold_us" in status.unavailable
    return measured


def test_every_hold_is_counted(held):
    """At least 10,007, without the reported losses.  Little else takes locks, and not for longer than all took."""
    (few, _, _), (many, took_ns, lost) = held(1), held(10_007)
    if held.absent:
        assert "spin_hold_us" not in many
        assert many["unavailable"]["spin_hold_us"]
        return
    few, many = few["spin_hold_us"], many["spin_hold_us"]
    assert 10_007 - lost <= many["count"] < 1.5 * 10_007 + few["count"]
    assert 0 < many["min_us"] <= many["p50_us"] <= many["max_us"]
    assert many["sum_us"] - few["sum_us"] < took_ns / 1e3


def test_the_estimate_of_one_in_ten_is_within_its_error(held):
    every, _, lost = held(10_007)
    tenth, _, _ = held(10_007, 10)
    if held.absent:
        assert tenth["unavailable"]["spin_hold_us"]
        return
    error = tenth["sampling"]["standard_error"]["spin_hold_us"]["count"]
    off = tenth["spin_hold_us"]["count"] - every["spin_hold_us"]["count"]
    assert 0 < error < 400
    assert abs(off) < 5 * error + 200 + lost  # no two runs switch and fault as often
