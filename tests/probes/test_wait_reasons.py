"""The time of a wait by its reasons: exact where it is known, and with its error where it was sampled."""

from struct import pack

import pytest

from chainbench_agent.catalog import CallStack, Names, Sampled
from chainbench_agent.probes.blocked_time import blocked_ns
from chainbench_agent.probes.offcpu import derive
from chainbench_agent.probes.wait_key import COMPAT, NO_CALL, UNINTERRUPTIBLE, UNKNOWN_CALL
from chainbench_agent.probes.wait_reasons import TOP, split

MS = 1_000_000
FUTEX, READ = 202, 0
NAMES = Names(
    tables={"calls": {FUTEX: "futex", READ: "read", 162: "sync"}, "calls_32bit": {162: "nanosleep"}},
    stacks={
        "offcpu_stacks": {
            CallStack(1): ("futex_do_wait",),
            CallStack(2): ("pipe_read", "vfs_read"),
            CallStack(3): ("sk_wait_data",),
        }
    },
)
PIPE, SOCKET = ("pipe_read", "vfs_read"), ("sk_wait_data",)


def short(ms, threshold_ms=1, length_us=500):
    """Waits of this length that were walked, which stand for so much time."""
    walks = ms // threshold_ms
    p = length_us / 1000 / threshold_ms
    variance = walks * int((1 - p) * (threshold_ms * 1000) ** 2)
    return Sampled(0, walks * length_us * 1000, ms * MS, walks, variance)


def by_reason(parts):
    return {part.reason: part.ns / MS for part in parts}


def test_long_waits_are_exact():
    """Whatever the short ones are."""
    parts = split(READ, 1000 * MS, {PIPE: Sampled(exact_ns=400 * MS), SOCKET: Sampled(exact_ns=600 * MS)}, NAMES)

    assert by_reason(parts) == {"pipe_read": 400, "sk_wait_data": 600}
    assert [part.rendered()["standard_error_ms"] for part in parts] == [0, 0]
    assert [part.rendered()["sampled_percent"] for part in parts] == [100, 100]


def test_the_rest_is_split_as_it_was_sampled():
    """A quarter of the weight is a quarter of the time that is not exact."""
    stacks = {PIPE: short(30), SOCKET: short(10)}
    stacks[SOCKET].exact_ns = 600 * MS

    parts = split(READ, 1000 * MS, stacks, NAMES)

    assert by_reason(parts) == {"pipe_read": 300, "sk_wait_data": 700}
    # of the rest: sqrt(10^2 * 15 + 30^2 * (5 + 1)) / 40^2; a walk of 1 ms has the variance 0.5, what was not met has 1
    error = 400 * (100 * 15 + 900 * (5 + 1)) ** 0.5 / 1600
    assert parts[0].rendered()["standard_error_ms"] == pytest.approx(error, abs=0.001)
    assert parts[0].rendered()["sampled_percent"] == 5.0  # 30 walks of 0.5 ms


def test_a_single_function_is_sampled_all_the_same():
    """Another one that was never met may have had as much as a walk stands for."""
    (part,) = split(READ, 1000 * MS, {PIPE: short(50)}, NAMES)

    assert part.rendered() == {
        "reason": "pipe_read",
        "syscall": "read",
        "ms": 1000,
        "sampled_percent": 2.5,
        "standard_error_ms": 20,
    }


def test_without_a_stack_the_system_call_is_the_reason():
    """And an exception, which has none, is called that; no name but a number is a name too."""
    keys = (FUTEX, NO_CALL, NO_CALL | UNINTERRUPTIBLE, 300, UNKNOWN_CALL, 162, 162 | COMPAT)

    found = [(part.reason, part.syscall) for key in keys for part in split(key, MS, {}, NAMES)]

    calls = ("futex", "", "", "300", "unknown call", "sync", "nanosleep")
    assert found == [(f"blocked in {call}" if call else "exception", call) for call in calls]
    (part,) = split(FUTEX, MS, {}, NAMES)
    assert part.rendered() == {"reason": "blocked in futex", "syscall": "futex", "ms": 1, "sampled_percent": 0}


def test_a_thread_without_stacks_has_its_targets_split():
    """And says so; its own long waits stay its own."""
    theirs = {PIPE: short(30), SOCKET: short(10)}
    theirs[SOCKET].exact_ns = 900 * MS

    parts = split(READ, 500 * MS, {PIPE: Sampled(exact_ns=100 * MS)}, NAMES, theirs)

    assert by_reason(parts) == {"pipe_read": 400, "sk_wait_data": 100}
    assert [part.rendered()["split_of"] for part in parts] == ["target", "target"]


def test_a_thread_with_stacks_has_its_own_split():
    parts = split(READ, 500 * MS, {PIPE: short(3)}, NAMES, {PIPE: short(3), SOCKET: short(300)})

    assert by_reason(parts) == {"pipe_read": 500}
    assert "split_of" not in parts[0].rendered()


def test_a_thread_whose_account_lost_some_of_its_time():
    """Its stacks get no more time than its account has."""
    parts = split(READ, 60 * MS, {PIPE: Sampled(exact_ns=50 * MS), SOCKET: Sampled(exact_ns=100 * MS)}, NAMES)

    assert by_reason(parts) == {"pipe_read": pytest.approx(20), "sk_wait_data": pytest.approx(40)}


def test_where_the_registers_are_not_found():
    """No system call is named; a stack gives the reason, and a wait without one is just `blocked`."""
    names = Names(NAMES.tables, NAMES.stacks, {}, {}, no_calls="why")

    parts = split(READ, 10 * MS, {PIPE: Sampled(exact_ns=6 * MS)}, names)

    assert [(part.category, part.reason, part.syscall) for part in parts] == [
        ("pipe", "pipe_read", ""),
        ("other", "blocked", ""),
    ]


def offcpu(blocked=(), sampled=(), open_waits=(), **runnable):
    """The module's differences: wait → ns; (wait, stack) → Sampled."""
    return {
        "blocked_ns": {pack("=I", wait): ns.to_bytes(8, "little") for wait, ns in dict(blocked).items()},
        "sampled_ns": {
            pack("=I4xQ", *key): pack("=5Q", *(getattr(value, name) for name in Sampled.__slots__))
            for key, value in dict(sampled).items()
        },
        "open_waits": dict(open_waits),
        "asleep_ns": 0,
        "block_count": 0,
        **{f"{kind}_wait_ns": runnable.get(kind, 0) for kind in ("woken", "preempted", "throttled")},
    }


def top_reasons(counts):
    return derive(counts, NAMES)["top_reasons"]


def test_the_run_queue_is_a_reason():
    """And so is a quota that is used up; both are exact."""
    found = top_reasons(offcpu(woken=1_000_000, preempted=3_000_000, throttled=2_000_000))

    assert [(r["reason"], r["ms"], r["sampled_percent"], r["standard_error_ms"]) for r in found] == [
        ("run queue (preempted)", 3, 100, 0),
        ("throttled", 2, 100, 0),
        ("run queue (woken)", 1, 100, 0),
    ]


def test_what_was_open_at_the_end_is_known_exactly():
    """It is added to the waits that had ended, with the functions that the kernel gave for it."""
    found = top_reasons(
        offcpu({READ: 5 * MS}, {(READ, 2): Sampled(exact_ns=5 * MS)}, {(READ, PIPE): 7 * MS, (FUTEX, ()): MS})
    )

    assert [(r["reason"], r["ms"], r["sampled_percent"]) for r in found] == [
        ("pipe_read", 12, 100),
        ("blocked in futex", 1, 100),
    ]


def test_waits_of_one_name_are_one_reason():
    """Whether a signal could have ended them is no difference."""
    found = top_reasons(offcpu({FUTEX: 2 * MS, FUTEX | UNINTERRUPTIBLE: 3 * MS}))

    assert [(r["reason"], r["ms"]) for r in found] == [("blocked in futex", 5)]


def test_the_longest_reasons_come_first_and_are_limited():
    found = top_reasons(offcpu({wait: MS * (wait + 1) for wait in range(30)}))

    assert [reason["ms"] for reason in found] == [float(30 - i) for i in range(TOP)]


def test_the_target_is_the_sum_of_all():
    """By wait, with what was open."""
    counts = offcpu({READ: 5, FUTEX: 3}, open_waits={(READ, ()): 2, (READ, PIPE): 1})

    assert blocked_ns(counts) == {READ: 8, FUTEX: 3}
