"""Where the time of threads went that no hook saw at work: what /proc showed before the run and after it decides."""

from dataclasses import replace

import pytest

from chainbench_agent.evidence.sample import Account, Members, ProcThread, Sleeper, Thread
from chainbench_agent.evidence.sleepers import uncounted_processes, with_accounts

MS = 1_000_000
BEGIN, END = 1_000 * MS, 1_200 * MS
BEFORE, AFTER = BEGIN - 3 * MS, END + 5 * MS
"""/proc is read 3 ms before the run begins, and 5 ms after it has ended."""


def proc(state="S", on_cpu=50, runnable=20, arrivals=7, *, at_ns=AFTER, born_ns=0):  # noqa: PLR0913 - as /proc has it
    """A thread as /proc shows it; times are in milliseconds."""
    return ProcThread(7, "sh", at_ns, state, born_ns, born_ns + 10 * MS, on_cpu * MS, runnable * MS, arrivals)


@pytest.fixture
def booked(sample):
    """`booked(before, now)` → the account of a thread in ms (wall, on_cpu, runnable, blocked); None if it has none."""

    def of(before, now, begin_ns=BEGIN, **more):
        known = {} if before is None else {9: replace(before, at_ns=BEFORE)}
        first = sample(BEGIN, members=Members(proc_threads=known))
        asleep = Sleeper(Thread(9, 7, "sh", begin_ns), 202, "futex_do_wait", now, **more)
        last = with_accounts(first, sample(END, members=Members(sleepers=(asleep,))))
        if not last.members.sleepers:
            return None
        (found,) = last.members.sleepers
        account = found.account
        return tuple(n / MS for n in (account.wall_ns, account.on_cpu_ns, account.runnable_ns, account.blocked_ns))

    return of


@pytest.mark.parametrize(
    ("before", "now", "account"),
    [
        (proc(), proc(), (200, 0, 0, 200)),
        (proc("D"), proc("D"), (200, 0, 0, 200)),
        (proc("T"), proc("T"), (200, 0, 0, 200)),
        (proc("R"), proc("R", on_cpu=258), (200, 200, 0, 0)),
        (proc("R"), proc("R", on_cpu=248), (200, 200, 0, 0)),
        (proc("R"), proc("R"), (200, 0, 200, 0)),
        (proc("R"), proc("R", on_cpu=52), (200, 0, 200, 0)),
        (proc("R"), proc("R", on_cpu=55, runnable=222, arrivals=8), (200, 0, 200, 0)),
        (proc("R"), proc("S", on_cpu=55, runnable=222, arrivals=8), (200, 0, 200, 0)),
        (proc("R"), proc("S", on_cpu=51), (200, 0, 0, 200)),
        (proc("S"), proc("S", on_cpu=52, runnable=21, arrivals=9), (200, 0, 0, 200)),
        (proc("S"), proc("Z", on_cpu=52, runnable=21, arrivals=9), (200, 0, 0, 200)),
    ],
    ids=[
        "asleep",
        "asleep, uninterruptible",
        "stopped",
        "on a CPU",
        "on a CPU, and its account is behind by a tick",
        "runnable",
        "runnable, after it ran for a moment before the run",
        "runnable, until it ran after the run",
        "runnable, until it ran and slept after the run",
        "fell asleep before the run",
        "woke after the run",
        "ended after the run",
    ],
)
def test_a_thread_was_one_thing_all_the_time(booked, before, now, account):
    """Its state between a reading of /proc and the nearest edge of the run does not matter."""
    assert booked(before, now) == account


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (proc("S"), proc("R")),
        (proc("R"), proc("R", on_cpu=52, arrivals=8)),
        (None, proc("R")),
        (replace(proc("R"), on_cpu_ns=None), replace(proc("R"), on_cpu_ns=None)),
    ],
    ids=["woken before the run or after it", "ran before the run or after it", "joined", "no schedstat"],
)
def test_time_that_is_not_known_is_unexplained(booked, before, now):
    """Its wall time is there, and no part of it has a name."""
    assert booked(before, now) == (200, 0, 0, 0)


def test_a_switch_that_no_hook_saw(booked):
    """Each line gets the time that cannot lie outside of the run; the rest is unexplained."""
    ran = booked(proc("R"), proc("R", on_cpu=150))
    waited = booked(proc("S"), proc("S", on_cpu=150, runnable=100, arrivals=9))

    assert ran == (200, 92, 90, 0)  # 8 ms may lie outside, and the account may be behind by 10
    assert waited == (200, 92, 72, 10)


@pytest.mark.parametrize("state", ["S", "R", "Z"])
def test_a_thread_that_was_born_after_the_run(booked, state):
    """It is left out, also where its number was another thread's before; births are known to a clock tick."""
    assert booked(None, proc(state, born_ns=END - 5 * MS)) is None
    assert booked(proc(), proc(state, born_ns=END - 5 * MS)) is None


def test_a_thread_that_was_born_in_the_run_and_has_no_record(booked):
    """Its account is the kernel's own, since its birth."""
    born = proc("S", on_cpu=60, runnable=20, arrivals=4, born_ns=BEGIN + 90 * MS)

    assert booked(None, born) == (100, 55, 15, 10)


@pytest.mark.parametrize("before", [proc("Z"), proc("X"), None])
def test_a_thread_that_was_dead(booked, before):
    """A leader that ended before its threads waits for nothing."""
    assert booked(before, proc("Z")) is None


def test_a_thread_that_joined_asleep(booked):
    """It has been asleep since it was last seen outside."""
    assert booked(None, proc("S"), begin_ns=BEGIN + 50 * MS) == (150, 0, 0, 150)


def test_processes_that_no_hook_counted(sample):
    """Processes of a cgroup whose threads all made no move, without those that were born after the run."""
    asleep = Sleeper(Thread(9, 7, "sh", BEGIN), 0, "", proc())
    late = Sleeper(Thread(8, 8, "sh", BEGIN), 0, "", proc(born_ns=END))
    counted = Sleeper(Thread(5, 4, "sh", BEGIN), 0, "", proc())
    members = Members(sleepers=(asleep, late, counted), enrolled=frozenset({4}))
    found = with_accounts(sample(BEGIN), sample(END, members=members)).members

    assert uncounted_processes(found) == 1
    assert uncounted_processes(Members(seeds=3)) == 3


def test_a_wait_on_a_futex(sample):
    """It is one call, as long as the thread slept."""
    asleep = Sleeper(Thread(9, 7, "sh", BEGIN), 202, "futex_do_wait", proc(), in_futex=True)
    (found,) = with_accounts(sample(BEGIN), sample(END, members=Members(sleepers=(asleep,)))).members.sleepers

    assert found.account == Account(200 * MS, blocked_ns=200 * MS, futex_waits=1, futex_waited_ns=200 * MS)


def test_a_runnable_thread_that_has_a_quota(booked):
    """It waited for a CPU, or for its quota: that is not known, and so is no part of the account."""
    assert booked(proc("R"), proc("R")) == (200, 0, 200, 0)
    assert booked(proc("R"), proc("R"), has_quota=True) == (200, 0, 0, 0)


def test_a_thread_that_left_with_its_process(booked):
    """It was in the target until then."""
    assert booked(proc(), proc(), until_ns=BEGIN + 50 * MS) == (50, 0, 0, 50)
