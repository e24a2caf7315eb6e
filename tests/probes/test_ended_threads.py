"""All ended threads are in the sum; those that lived longest have a record as well (probes/lib/task.h)."""

import pytest
from user_space import DEAD

from chainbench_agent.loading.unit_sizes import ENDED_THREADS

ROOT = 10
OCTAVE = ENDED_THREADS // 32
"""When so many more have a record, a thread must have lived twice as long: CB_ENDED_PER_OCTAVE."""

LONG_NS = 10**13
"""Longer than any threshold: 1 µs doubled 31 times is 36 minutes."""


@pytest.fixture
def tree(kernel):
    return kernel.at(1000).tree(ROOT).begin()


def live(kernel, lives_ns):
    """Runs one thread after the other, each for its time; returns the times of those that have a record."""
    for pid, ns in enumerate(lives_ns, start=100):
        task = kernel.task(pid, tgid=ROOT)
        kernel.born(task)
        kernel.switch(kernel.idle, task)
        kernel.at(kernel.now_ns + ns).switch(task, kernel.idle, DEAD)
    return [account.wall_ns for account in kernel.sample().members.ended_singly.values()]


@pytest.mark.parametrize(
    ("recorded", "least_ns"), [(0, 1000), (OCTAVE - 1, 1000), (OCTAVE, 2000), (5 * OCTAVE, 32_000)]
)
def test_the_more_are_recorded_the_longer_one_must_have_lived(tree, recorded, least_ns):
    """The threshold itself is long enough; a nanosecond less is not."""
    before = [LONG_NS] * recorded

    assert sorted(live(tree, [*before, least_ns - 1, least_ns])) == [least_ns, *before]
    assert tree.sample().members.ended_threads == recorded + 2


def test_a_long_one_behind_thousands_of_short_ones(tree):
    """The short ones stop at the threshold that they do not reach, long before there is no room."""
    short_ns = 10_000

    found = live(tree, [short_ns] * 2 * ENDED_THREADS + [LONG_NS])

    assert found.count(short_ns) == 4 * OCTAVE  # 8 µs is the last threshold that they reach
    assert max(found) == LONG_NS
    members = tree.sample().members
    assert members.ended_threads == 2 * ENDED_THREADS + 1
    assert members.ended.wall_ns == 2 * ENDED_THREADS * short_ns + LONG_NS


def test_no_room(tree):
    """Without room no thread gets a record, however long it lived; the sum goes on."""
    found = live(tree, [LONG_NS] * (ENDED_THREADS + OCTAVE + 1))

    assert found == [LONG_NS] * ENDED_THREADS
    members = tree.sample().members
    assert members.ended_threads == ENDED_THREADS + OCTAVE + 1
    assert members.ended.wall_ns == members.ended.on_cpu_ns == LONG_NS * members.ended_threads


def test_each_run_begins_with_the_shortest(tree):
    """Records of a former run take no room in this one."""
    live(tree, [LONG_NS] * 3 * OCTAVE)
    tree.end()

    assert live(tree.tree(ROOT).begin(), [1000]) == [1000]
