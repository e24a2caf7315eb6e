"""Bytes of per-CPU maps, packed here by hand, become values."""

import struct

import pytest

from chainbench_agent.catalog import HISTOGRAM_SLOTS, Counter, Distribution, Module, Scratch, Table
from chainbench_agent.evidence.sample import Account, OpenInterval, TaskState, Thread
from chainbench_agent.kernel.reading import map_decoding
from chainbench_agent.kernel.reading.map_decoding import decode, ended_threads, open_tasks, sums, words

CPUS = 3
RUN = 7

CALLS = Counter(name="calls", help="")
KINDS = Table(name="kinds", help="", entries=4, names="", label="")
LATENCY = Distribution(name="latency_ns", help="")
LAST = Counter(name="last", help="")
MODULE = Module(
    name="m",
    question="?",
    metrics=(CALLS, KINDS, LATENCY, LAST),
    scratch=(Scratch(name="nth", entries=2, when_full="", field=True),),
)


def cpu(calls=0, kinds=(0, 0, 0, 0), slots=None, totals=(0, 0, 0, 0), last=0):
    """One CPU's struct: calls, kinds[4], sum, min, max, run, slots[640], last, nth[2]."""
    histogram = [(slots or {}).get(slot, 0) for slot in range(HISTOGRAM_SLOTS)]
    return struct.pack(f"={HISTOGRAM_SLOTS + 12}Q", calls, *kinds, *totals, *histogram, last, 99, 98)


def test_cpus_are_summed_field_by_field():
    """Three CPUs, of which one counted nothing; what is no metric is not read."""
    raw = cpu(1, (1, 0, 0, 9), last=100) + cpu() + cpu(40, (1, 2, 0, 0), last=3)

    found = decode(MODULE, raw, CPUS, RUN)

    assert list(found) == ["calls", "kinds", "latency_ns", "last"]
    assert (found["calls"], found["kinds"], found["last"]) == (41, (2, 2, 0, 9), 103)


def test_a_counter_may_be_large():
    """Years of nanoseconds on each CPU are no overflow."""
    assert decode(MODULE, cpu(2**63) * CPUS, CPUS, RUN)["calls"] == 3 * 2**63


def test_extremes_are_those_of_this_run():
    """Slots and sum are of all time, the smallest and largest of the CPUs that observed in this run."""
    raw = (
        cpu(slots={0: 1, 100: 2}, totals=(500, 30, 300, RUN))
        + cpu(slots={5: 4}, totals=(24, 1, 9999, RUN - 1))
        + cpu(slots={100: 1, 639: 1}, totals=(7000, 50, 6900, RUN))
    )

    found = decode(MODULE, raw, CPUS, RUN)["latency_ns"]

    assert {slot: count for slot, count in enumerate(found.slots) if count} == {0: 1, 5: 4, 100: 3, 639: 1}
    assert (found.sum, found.min, found.max) == (7524, 30, 6900)


def test_without_observations_there_are_no_extremes():
    """Not a zero that was never measured."""
    found = decode(MODULE, cpu(totals=(500, 30, 300, RUN - 1)) * CPUS, CPUS, RUN)["latency_ns"]

    assert (found.sum, found.min, found.max) == (1500, None, None)


@pytest.mark.parametrize(("metric", "size"), [(CALLS, 1), (KINDS, 4), (LATENCY, HISTOGRAM_SLOTS + 4)])
def test_words(metric, size):
    assert words(metric) == size


STARTED = 3
ACCOUNT = (101, 102, 103, 104)
"""on_cpu, runnable, blocked, throttled"""
FUTEX = (105, 106)
"""waits, waited"""
CALL_NS, NOTED, CALL = 707, 0xDDDD, 3


def task(tid, state, *, run=RUN, since=10, begin=STARTED, wait=5, counted=1, kthread=0, born=0):  # noqa: PLR0913 - as a record has
    """A struct cb_task: first the members that a switch uses, then the rest."""
    account = (*ACCOUNT[:-1], 0xFFFF, tid, run, tid + 500, wait, 0, state, counted, kthread)
    rest = (begin, ACCOUNT[-1], 0xEEEE, CALL_NS, NOTED, born or tid, CALL)
    name_and_futex = (f"t{tid}".encode(), 0xEEEE, *FUTEX, 0xEEEE)
    return struct.pack("=5QIIIIiBBBx5QI2xBx16x16s4Q16x", since, *account, *rest, *name_and_futex)


def opened(*records, entered=()):
    on_cpu = b"".join(struct.pack("=QII", 0xFFFF, *pair) for pair in entered)
    return list(open_tasks(memoryview(b"".join(records)), on_cpu, RUN))


def interval(tid, state, since, wait, *, kernel_thread=False):
    thread = Thread(tid, tid + 500, f"t{tid}", STARTED)
    return OpenInterval(state, since, wait, kernel_thread, thread, Account(0, *ACCOUNT, *FUTEX), CALL, CALL_NS)


def test_open_tasks():
    """Everything that a record says, signs included."""
    found = opened(
        task(1, TaskState.BLOCKED, since=11, wait=202),
        task(2, TaskState.RUNNABLE, since=12, kthread=1),
        task(3, TaskState.PREEMPTED, since=13, wait=0xFFFFFFFF),
        task(4, TaskState.THROTTLED, since=14),
    )

    assert found == [
        interval(1, TaskState.BLOCKED, 11, 202),
        interval(2, TaskState.RUNNABLE, 12, 5, kernel_thread=True),
        interval(3, TaskState.PREEMPTED, 13, 0xFFFFFFFF),
        interval(4, TaskState.THROTTLED, 14, 5),
    ]


def test_whose_records_are_no_threads_of_the_run():
    """Other runs', those that are not in the target, never used, or ended."""
    assert not opened(
        task(1, TaskState.BLOCKED, run=RUN - 1),
        task(2, TaskState.BLOCKED, counted=0),
        task(3, TaskState.FREE),
        task(4, TaskState.UNSEEN, counted=0),
        bytes(192),
    )


def test_strangers():
    """Threads seen in this run that live and are not in the target → when the present state of each began."""
    records = (
        task(1, TaskState.BLOCKED, since=11, counted=0),
        task(2, TaskState.BLOCKED, since=12),
        task(3, TaskState.FREE, counted=0),
        task(4, TaskState.BLOCKED, run=RUN - 1, counted=0),
        task(5, TaskState.RUNNING, since=15, counted=0, born=50),
    )

    assert map_decoding.strangers(memoryview(b"".join(records)), RUN) == {1: 11, 5: 15}


def test_a_thread_has_two_numbers():
    """The first one is its name; by the present one it is known to /proc, and to the CPU that it entered."""
    (found,) = opened(task(5, TaskState.RUNNING, born=50), entered=[(5, RUN)])

    assert (found.thread.tid, found.tid, found.state) == (50, 5, TaskState.RUNNING)


def test_who_made_no_switch_has_its_cpu():
    """It did something, a system call perhaps, and never left: it runs since the run began, or its record did."""
    (found,) = opened(task(4, TaskState.UNSEEN, since=STARTED), entered=[(1, RUN), (2, RUN)])

    assert (found.state, found.since_ns) == (TaskState.RUNNING, STARTED)


def test_running_is_who_a_cpu_entered_last():
    """Another thread has left unseen, at an unknown time.  An entry of a CPU from a former run is ignored."""
    found = opened(
        task(1, TaskState.RUNNING, since=11),
        task(2, TaskState.RUNNING, since=12),
        task(3, TaskState.RUNNING, since=13),
        entered=[(1, RUN), (0, RUN), (3, RUN - 1)],
    )

    assert [(interval.thread.tid, interval.state) for interval in found] == [
        (1, TaskState.RUNNING),
        (2, TaskState.UNSEEN),
        (3, TaskState.UNSEEN),
    ]


@pytest.mark.parametrize(
    ("other_cpu", "since", "state"),
    [
        ((9, RUN - 1), STARTED, TaskState.RUNNING),
        ((9, RUN), STARTED, TaskState.UNSEEN),
        ((9, RUN - 1), STARTED + 1, TaskState.UNSEEN),
    ],
    ids=["on the CPU that made no switch", "every CPU made one", "it made a switch itself"],
)
def test_running_since_the_beginning(other_cpu, since, state):
    """A CPU that made no switch in the run still runs the thread that had it when the run began."""
    (found,) = opened(task(1, TaskState.RUNNING, since=since), entered=[(8, RUN), other_cpu])

    assert found.state == state


def test_ended_threads():
    """By thread, each with its account."""
    key = struct.pack("=QII", 1000, 10, 9)
    value = struct.pack("=QQQQQQQ16s", 100, 40, 10, 30, 20, 2, 25, b"worker\0rest")

    assert ended_threads({key: value}) == {Thread(10, 9, "worker", 1000): Account(100, 40, 10, 30, 20, 2, 25)}


def test_sums(monkeypatch):
    """Field by field, over the CPUs that there may be."""
    monkeypatch.setattr(map_decoding, "possible_cpus", lambda: CPUS)

    assert sums(struct.pack("=6Q", 1, 2, 30, 40, 500, 600)) == (531, 642)
