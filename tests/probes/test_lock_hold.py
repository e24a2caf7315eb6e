"""How long spin locks are held (probes/locks.h): the places of a CPU, interrupts, and what was not seen."""

import ctypes

import pytest
from user_space import AGENT

from chainbench_agent.catalog import Names
from chainbench_agent.evidence.sampling_error import sampling
from chainbench_agent.probes.locks import MODULE

HARD = 0x10000
LOCK = 0xFFFF888000001000
PLACES = 8
TAKES = ("lock", "lock_irqsave", "lock_irq", "lock_bh")
RELEASES = ("unlock", "unlock_irqrestore", "unlock_irq", "unlock_bh")


class Spins:
    def __init__(self, kernel):
        self.kernel = kernel

    def take(self, at, task, lock=LOCK, *, how="lock", cpu=0, answer=0):  # noqa: PLR0913 - as a call has
        self.kernel.at(at).fire(f"kretfunc___raw_spin_{how}", lock, answer, cpu=cpu, current=task)

    def release(self, at, task, lock=LOCK, *, how="unlock", cpu=0):
        self.kernel.at(at).fire(f"kfunc___raw_spin_{how}", lock, cpu=cpu, current=task)

    @property
    def held(self):
        """(how many, ns in all)"""
        found = self.kernel.counted()["locks"]["spin_hold_ns"]
        return sum(found.slots), found.sum


@pytest.fixture
def user(kernel):
    return kernel.task(10)


@pytest.fixture
def spins(kernel):
    kernel.at(1000).begin()
    return Spins(kernel)


@pytest.mark.parametrize(("take", "release"), [*zip(TAKES, RELEASES, strict=True)])
def test_a_lock(spins, user, take, release):
    """From the return of what takes it to the call of what releases it."""
    spins.take(1100, user, how=take)
    spins.release(1130, user, how=release)
    spins.release(1140, user, how=release)

    assert spins.held == (1, 30)


@pytest.mark.parametrize("how", ["trylock", "trylock_bh"])
def test_a_lock_that_was_tried(spins, user, how):
    """Only what was taken is held."""
    for answer in (0, 1):
        spins.take(1100, user, how=how, answer=answer)
        spins.release(1130, user)

    assert spins.held == (1, 30)


def test_locks_in_locks(spins, user):
    """As many locks as there are places are followed; they may be released in any order."""
    for number in range(PLACES):
        spins.take(1100 + number, user, LOCK + number)
    for number in (3, 0, 1, 2, 7, 6, 5, 4):
        spins.release(1200 + number, user, LOCK + number)

    assert spins.held == (PLACES, 100 * PLACES)
    assert spins.kernel.lost() == {}


def test_more_than_can_be_remembered(spins, user):
    """The oldest gives way, and is lost, and counted so."""
    for number in range(PLACES + 1):
        spins.take(1100 + number, user, LOCK + number)
    for number in range(PLACES + 1):
        spins.release(1200 + number, user, LOCK + number)

    assert spins.held == (PLACES, 100 * PLACES)
    assert spins.kernel.lost() == {"locks_full": 1}


def test_each_cpu_has_its_own_record(spins, kernel, user):
    """A release on another CPU does not end the hold time of a lock taken on this one."""
    spins.take(1100, user)
    spins.release(1150, kernel.task(11), cpu=1)
    spins.take(1160, kernel.task(11), cpu=1)
    spins.release(1190, kernel.task(11), cpu=1)

    assert spins.held == (1, 30)


def test_a_release_that_was_not_seen(spins, user):
    """A lock that is taken again had been released in between: the first hold time is not counted."""
    spins.take(1100, user)
    spins.take(1500, user)
    spins.release(1520, user)

    assert spins.held == (1, 20)


def test_a_lock_that_changes_its_owner(spins, kernel, user):
    """A run queue's is taken by the thread that leaves, and released by the one that comes."""
    spins.take(1100, user)
    spins.release(1130, kernel.task(11))

    assert spins.held == (1, 30)


@pytest.fixture
def trees(kernel, user):
    kernel.at(1000).tree(user.pid).begin()
    return Spins(kernel)


def test_others_do_not_count(trees, kernel, user):
    """Nor do interrupts on top of the target's threads; what they take inside of its locks disturbs nothing."""
    trees.take(1010, kernel.task(11))
    trees.release(1020, kernel.task(11))
    trees.take(1100, user)
    kernel.tell("shim_set_preempt_count", user, HARD)
    trees.take(1110, user, LOCK + 1)
    trees.release(1120, user, LOCK + 1)
    kernel.tell("shim_set_preempt_count", user, 0)
    trees.release(1130, user)

    assert trees.held == (1, 30)


def test_of_the_whole_machine_interrupts_count(spins, kernel, user):
    """The agent's own locks never do."""
    kernel.tell("shim_set_preempt_count", user, HARD)
    spins.take(1100, user)
    spins.release(1130, user)
    spins.take(1200, kernel.task(AGENT))
    spins.release(1230, kernel.task(AGENT))

    assert spins.held == (1, 30)


def test_from_one_run_into_the_next(spins, kernel, user):
    """Nobody knows what was held in between."""
    spins.take(1100, user)
    kernel.end().at(5000).begin()
    spins.release(5100, user)
    assert spins.held == (0, 0)
    for number in range(PLACES):
        spins.take(5200, user, LOCK + number)
    assert kernel.lost() == {}


def test_one_in_ten(kernel, user):
    """Each hold that is recorded counts ten times, with its time; the error of the count is reported."""
    kernel.sample_interval = 10
    spins = Spins(kernel.at(1000).begin())
    for number in range(1000):
        kernel.set("shim_random", ctypes.c_uint32, number)
        spins.take(2000 + 100 * number, user)
        spins.release(2030 + 100 * number, user)

    assert spins.held == (1000, 30_000)
    found = sampling(MODULE, kernel.counted()["locks"], Names({}, {}, {}, {}), {}, 10)["sampling"]
    assert found["standard_error"]["spin_hold_us"] == {"count": 94.9}  # √(9 · 1,000)
