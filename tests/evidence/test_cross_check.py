"""The cross-check of throttled time, and the reason that it gives for a difference."""

import pytest

from chainbench_agent.evidence.cross_check import (
    MORE_OF_GROUPS,
    MORE_OF_THREADS,
    NOTE,
    OF_GROUPS,
    schedstat_check,
    throttled_check,
)
from chainbench_agent.evidence.sample import Account, Members, OpenInterval, ProcThread, Sample, TaskState, Thread

MS = 1_000_000


@pytest.mark.parametrize(
    ("threads", "groups", "reason"),
    [(70.5, 70.5, ""), (140.0, 70.0, MORE_OF_THREADS), (70.0, 140.0, MORE_OF_GROUPS)],
)
def test_throttled_time(threads, groups, reason):
    """Compares the time of the threads with that of the cgroups; the reason depends on which is longer."""
    sections = {"offcpu": {"throttled_ms": threads}, "cpu": {"throttled_ms": groups}}

    check = throttled_check(sections)["offcpu.throttled_ms"]

    assert (check.ebpf, check.kernel, check.from_) == (threads, groups, "cpu.stat")
    assert check.note == (f"{OF_GROUPS}; {reason}" if reason else OF_GROUPS)


@pytest.mark.parametrize(
    "sections",
    [
        {"offcpu": {"throttled_ms": 0}, "cpu": {"throttled_ms": 0.0}},
        {"offcpu": {"throttled_ms": 3.0}},
        {"cpu": {"throttled_ms": 3.0}},
        {"offcpu": {"throttled_ms": 3.0}, "cpu": {}},
    ],
    ids=["nothing was throttled", "no module cpu", "no module offcpu", "a kernel without quotas"],
)
def test_no_throttled_time(sections):
    """Nothing to compare."""
    assert throttled_check(sections) == {}


@pytest.mark.parametrize(
    ("throttled", "state"), [(30, TaskState.RUNNING), (20, TaskState.THROTTLED), (0, TaskState.RUNNING)]
)
def test_run_queue_time_of_throttled_threads(throttled, state):
    """In the kernel's schedstat such a thread waits for a CPU; the note has this share of the difference."""
    account = Account(runnable_ns=5 * MS, throttled_ns=throttled * MS)
    task = OpenInterval(state, 90 * MS, 0, kernel_thread=False, thread=Thread(7, 7, "t", 0), account=account)
    first = Sample(0, {}, members=Members(proc_threads={7: ProcThread(7, "t", 0, "R", 0, 0, 0)}))
    last = Sample(
        100 * MS,
        {},
        tasks=(task,),
        members=Members(proc_threads={7: ProcThread(7, "t", 100 * MS, "R", 0, 0, 60 * MS, 35 * MS)}),
    )

    check = schedstat_check(first, last)["ledger.runnable_ms"]

    expected = f"{NOTE}; the kernel also counts the 30.0 ms in which a CPU quota did not let them run"
    assert (check.ebpf, check.kernel) == (5, 35)
    assert check.note == (expected if throttled else NOTE)
