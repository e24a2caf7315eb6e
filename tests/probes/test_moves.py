"""A thread that is moved between cgroups by somebody else: its open interval is cut (probes/sched.h)."""

import ctypes

import pytest
from user_space import INTERRUPTIBLE, READ, blocked

from chainbench_agent.evidence.sample import Account, TaskState

OURS = (5, 6)
THEIRS = (5, 9)


@pytest.fixture
def grouped(kernel):
    """The target is OURS; the run begins at 1000."""
    return kernel.at(1000).cgroup(OURS[-1], level=2)


def moved(kernel, task, path, at):
    """As the kernel does: it moves the thread, and then tells of it."""
    kernel.move(task, *path)
    kernel.at(at).fire("cgroup_attach_task_0", 0, 0, task, 0)


def seed(kernel, task):
    """The agent has seen it in the target's cgroup."""
    (ctypes.c_uint32 * 1).in_dll(kernel.library, "cb_seeded_keys")[0] = task.pid
    (ctypes.c_uint8 * 1).in_dll(kernel.library, "cb_seeded_used")[0] = 1


def task_in(kernel, path, **more):
    task = kernel.task(10, syscall=READ, **more)
    kernel.move(task, *path)
    return task


def cpu(kernel, *, closed=False):
    counts = kernel.counted(closed=closed)["cpu"]
    return counts["on_cpu_ns"], counts["context_switches"]


def ended(kernel):
    """The sum of what ended; threads that were there so shortly are not kept singly."""
    members = kernel.sample().members
    return [members.ended] if members.ended_threads else []


def test_out_while_it_runs(grouped):
    """What it did until then counts; it has made no switch by that."""
    task = task_in(grouped, OURS, on_cpu=True)
    grouped.begin().switch(grouped.idle, task)
    moved(grouped, task, THEIRS, 1400)
    assert ended(grouped) == [Account(wall_ns=400, on_cpu_ns=400)]
    assert cpu(grouped) == (400, 0)
    grouped.at(2000).switch(task, grouped.idle, INTERRUPTIBLE)
    grouped.end()

    assert cpu(grouped, closed=True) == (400, 0)
    assert grouped.processes()[10].figures["cpu"]["on_cpu_ns"] == 400


def test_in_while_it_runs(grouped):
    """What it did before is not counted, and its time in the target begins now."""
    task = task_in(grouped, THEIRS, on_cpu=True)
    grouped.begin().switch(grouped.idle, task)
    moved(grouped, task, OURS, 1400)
    grouped.at(2000).switch(task, grouped.idle, INTERRUPTIBLE)

    assert cpu(grouped) == (600, 1)
    (joined,) = grouped.sample().tasks
    assert (joined.thread.begin_ns, joined.account.on_cpu_ns) == (1400, 600)


def test_in_and_out_and_in_again_while_it_runs(grouped):
    """Without a switch in all the time."""
    task = task_in(grouped, THEIRS, on_cpu=True)
    grouped.begin().switch(grouped.idle, task)
    for path, at in ((OURS, 1100), (THEIRS, 1300), (OURS, 1800)):
        moved(grouped, task, path, at)
    grouped.at(2000).end()

    assert ended(grouped) == [Account(wall_ns=200, on_cpu_ns=200)]
    assert cpu(grouped, closed=True) == (400, 0)


def test_that_never_switches(grouped):
    """It has a CPU of its own; that it was in the target when the run began is told by the agent."""
    task = task_in(grouped, OURS, on_cpu=True)
    seed(grouped, task)
    grouped.begin()
    moved(grouped, task, THEIRS, 1400)

    assert ended(grouped) == [Account(wall_ns=400, on_cpu_ns=400)]
    moved(grouped, task, OURS, 1600)
    (back,) = grouped.at(2000).sample().tasks
    assert (back.state, back.since_ns, back.thread.begin_ns) == (TaskState.RUNNING, 1600, 1600)


@pytest.mark.parametrize(("state", "expected"), [(INTERRUPTIBLE, "blocked_ns"), (0, "runnable_ns")])
def test_that_made_no_move_off_the_cpus(grouped, state, expected):
    """It has been asleep, or waiting for a CPU, all the time."""
    task = task_in(grouped, OURS, state=state)
    seed(grouped, task)
    grouped.begin()
    moved(grouped, task, THEIRS, 1400)

    assert ended(grouped) == [Account(wall_ns=400, **{expected: 400})]


def test_out_while_it_sleeps(grouped):
    """The sleep until then counts, under the call that it sleeps in."""
    task = task_in(grouped, OURS, on_cpu=True)
    grouped.begin().switch(grouped.idle, task)
    grouped.at(1100).switch(task, grouped.idle, INTERRUPTIBLE)
    moved(grouped, task, THEIRS, 1400)
    grouped.at(3000).wake(task)
    grouped.switch(grouped.idle, task)

    assert ended(grouped) == [Account(wall_ns=400, on_cpu_ns=100, blocked_ns=300)]
    offcpu = grouped.counted()["offcpu"]
    assert blocked(offcpu) == {READ: 300}
    assert offcpu["off_cpu_ns"] == 300


def test_in_while_it_sleeps(grouped):
    """The sleep from then on counts."""
    task = task_in(grouped, THEIRS, on_cpu=True)
    grouped.begin().switch(grouped.idle, task)
    grouped.at(1100).switch(task, grouped.idle, INTERRUPTIBLE)
    moved(grouped, task, OURS, 1400)
    grouped.at(3000).wake(task)

    (joined,) = grouped.sample().tasks
    assert (joined.thread.begin_ns, joined.account.blocked_ns) == (1400, 1600)


@pytest.mark.parametrize("woken", [False, True])
def test_out_while_it_waits_for_a_cpu(grouped, woken):
    """The wait until then counts, as one of its kind."""
    task = task_in(grouped, OURS, on_cpu=True)
    grouped.begin().switch(grouped.idle, task)
    grouped.at(1100).switch(task, grouped.idle, INTERRUPTIBLE if woken else 0)
    if woken:
        grouped.wake(task)
    moved(grouped, task, THEIRS, 1400)

    assert ended(grouped) == [Account(wall_ns=400, on_cpu_ns=100, runnable_ns=300)]
    offcpu = grouped.counted()["offcpu"]
    assert (offcpu["woken_wait_ns"], offcpu["preempted_wait_ns"]) == ((300, 0) if woken else (0, 300))


def test_within_the_target(grouped):
    """From the group to one below it: nothing is cut."""
    task = task_in(grouped, OURS, on_cpu=True)
    grouped.begin().switch(grouped.idle, task)
    moved(grouped, task, (*OURS, 7), 1400)
    grouped.at(2000).switch(task, grouped.idle, INTERRUPTIBLE)

    assert ended(grouped) == []
    assert cpu(grouped) == (1000, 1)


def test_strangers_are_not_met(grouped):
    """Moves of others make no record."""
    task = task_in(grouped, (5, 8), on_cpu=True)
    grouped.begin()
    moved(grouped, task, THEIRS, 1400)

    assert grouped.sample().tasks == ()
    assert grouped.sample().members.threads == 0


def test_a_tree_does_not_mind(kernel):
    """Who descends from a process does so in any cgroup."""
    task = kernel.task(10, on_cpu=True)
    kernel.at(1000).tree(10).begin().switch(kernel.idle, task)
    moved(kernel, task, THEIRS, 1400)
    kernel.at(2000).switch(task, kernel.idle, INTERRUPTIBLE)

    assert cpu(kernel) == (1000, 1)
