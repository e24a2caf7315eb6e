"""A thread that is moved between cgroups by somebody else: its open interval is cut (probes/machines/sched.h)."""

import ctypes
from dataclasses import replace

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
    """Does as the kernel does: moves the thread, and then fires the tracepoint."""
    kernel.move(task, *path)
    kernel.at(at).fire("cgroup_attach_task_0", 0, 0, task, 0)


def seed(kernel, *tasks):
    """The agent has seen them in the target's cgroup."""
    for index, task in enumerate(tasks):
        (ctypes.c_uint32 * len(tasks)).in_dll(kernel.library, "cb_seeded_keys")[index] = task.pid
        (ctypes.c_uint8 * len(tasks)).in_dll(kernel.library, "cb_seeded_used")[index] = 1


def task_in(kernel, path, **more):
    task = kernel.task(10, syscall=READ, **more)
    kernel.move(task, *path)
    return task


def cpu(kernel, *, closed=False):
    counts = kernel.counted(closed=closed)["cpu"]
    return counts["on_cpu_ns"], counts["context_switches"]


def ended(kernel):
    """The sum of the accounts of threads that ended: they were there too shortly to be listed one by one."""
    members = kernel.sample().members
    return [members.ended] if members.ended_threads else []


def test_out_while_it_runs(grouped):
    """Its time until the move counts; the move is not counted as a switch."""
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
    """Its time before the move does not count; its time in the target begins at the move."""
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
    """It has a CPU of its own; the agent has noted that it was in the target when the run began."""
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


def test_a_process_tree_does_not_depend_on_cgroups(kernel):
    """A descendant of a process remains one in any cgroup."""
    task = kernel.task(10, on_cpu=True)
    kernel.at(1000).tree(10).begin().switch(kernel.idle, task)
    moved(kernel, task, THEIRS, 1400)
    kernel.at(2000).switch(task, kernel.idle, INTERRUPTIBLE)

    assert cpu(kernel) == (1000, 1)


# --- Processes with several threads -----------------------------------------------------------------


def process_in(kernel, path, **of_the_other):
    """A leader that sleeps, and another thread."""
    leader = kernel.task(10, state=INTERRUPTIBLE, syscall=READ)
    other = kernel.task(11, tgid=10, syscall=READ, **of_the_other)
    for task in (leader, other):
        kernel.tell("shim_set_live", task, 2)
        kernel.move(task, *path)
    if path == OURS:
        seed(kernel, leader, other)
    return leader, other


def ended_but_the_leader(kernel):
    """The leader slept until it was moved, at 1400."""
    (whole,) = ended(kernel)
    assert kernel.sample().members.ended_threads == 2
    return replace(whole, wall_ns=whole.wall_ns - 400, blocked_ns=whole.blocked_ns - 400)


def moved_as_a_whole(kernel, tasks, path, at):
    """Moves all threads of a process; the kernel fires the tracepoint only for the leader."""
    for task in tasks:
        kernel.move(task, *path)
    kernel.at(at).fire("cgroup_attach_task_0", 0, 0, tasks[0], 1)


def test_another_thread_out_while_it_runs(grouped):
    """It is cut at the moment of the move, by its next switch."""
    tasks = process_in(grouped, OURS, on_cpu=True)
    grouped.begin().switch(grouped.idle, tasks[1])
    moved_as_a_whole(grouped, tasks, THEIRS, 1400)
    grouped.at(2000).switch(tasks[1], grouped.idle, INTERRUPTIBLE)

    assert ended_but_the_leader(grouped) == Account(wall_ns=400, on_cpu_ns=400)
    assert cpu(grouped, closed=True) == (400, 0)
    assert grouped.processes(closed=True)[10].figures["cpu"]["on_cpu_ns"] == 400
    assert grouped.lost() == {}


def test_another_thread_in_while_it_runs(grouped):
    tasks = process_in(grouped, THEIRS, on_cpu=True)
    grouped.begin().switch(grouped.idle, tasks[1])
    moved_as_a_whole(grouped, tasks, OURS, 1400)
    grouped.at(2000).switch(tasks[1], grouped.idle, INTERRUPTIBLE)

    assert cpu(grouped) == (600, 1)
    joined = next(task for task in grouped.sample().tasks if task.tid == 11)
    assert (joined.thread.begin_ns, joined.account.on_cpu_ns) == (1400, 600)


def test_another_thread_out_while_it_sleeps(grouped):
    """The sleep until then counts, under the call that it sleeps in."""
    tasks = process_in(grouped, OURS, on_cpu=True)
    grouped.begin().switch(grouped.idle, tasks[1])
    grouped.at(1100).switch(tasks[1], grouped.idle, INTERRUPTIBLE)
    moved_as_a_whole(grouped, tasks, THEIRS, 1400)
    grouped.at(3000).wake(tasks[1])

    assert ended_but_the_leader(grouped) == Account(wall_ns=400, on_cpu_ns=100, blocked_ns=300)
    assert grouped.counted(closed=True)["offcpu"]["asleep_ns"] == 400 + 300


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("leaves its CPU", "on_cpu_ns"),
        ("is woken", "blocked_ns"),
        ("enters a CPU", "runnable_ns"),
    ],
)
def test_another_thread_that_made_no_move_before(grouped, event, expected):
    """It was at the same all the time, and in the target when the run began."""
    tasks = process_in(grouped, OURS)
    grouped.begin()
    moved_as_a_whole(grouped, tasks, THEIRS, 1400)
    grouped.at(2000)
    if event == "leaves its CPU":
        grouped.switch(tasks[1], grouped.idle, INTERRUPTIBLE)
    elif event == "is woken":
        grouped.wake(tasks[1])
    else:
        grouped.switch(grouped.idle, tasks[1])

    assert ended_but_the_leader(grouped) == Account(**{"wall_ns": 400, expected: 400})


def test_another_thread_that_was_born_later(grouped):
    """In a process that had been moved: it was never elsewhere."""
    tasks = process_in(grouped, THEIRS)
    grouped.begin()
    moved_as_a_whole(grouped, tasks, OURS, 1400)
    born = grouped.task(12, tgid=10)
    grouped.tell("shim_set_life", born, ctypes.c_uint64(1500), ctypes.c_uint64(0))
    grouped.move(born, *OURS)
    grouped.at(1500).born(born)
    grouped.at(1700).switch(grouped.idle, born)
    grouped.at(2000).switch(born, grouped.idle, INTERRUPTIBLE)

    found = next(task for task in grouped.sample().tasks if task.tid == 12)
    assert (found.thread.begin_ns, found.account) == (1500, Account(runnable_ns=200, on_cpu_ns=300))


def test_running_between_the_move_and_the_word_of_it(grouped):
    """The move precedes its tracepoint: an event of a thread between the two is where its time is cut."""
    tasks = process_in(grouped, OURS, on_cpu=True)
    grouped.begin().switch(grouped.idle, tasks[1])
    for task in tasks:
        grouped.move(task, *THEIRS)
    grouped.at(1390).enter(tasks[1], READ)
    grouped.at(1400).fire("cgroup_attach_task_0", 0, 0, tasks[0], 1)
    grouped.at(2000).switch(tasks[1], grouped.idle, INTERRUPTIBLE)

    assert ended_but_the_leader(grouped) == Account(wall_ns=390, on_cpu_ns=390)
    assert grouped.lost() == {}


def test_moved_twice_and_not_looked_at(grouped):
    """Where it was in between is not in its account: that is counted as lost."""
    tasks = process_in(grouped, OURS, on_cpu=True)
    grouped.begin().switch(grouped.idle, tasks[1])
    grouped.at(1010).switch(grouped.idle, tasks[0], cpu=1)  # the leader has a record
    for path, at in ((THEIRS, 1400), (OURS, 1600)):
        moved_as_a_whole(grouped, tasks, path, at)
    grouped.at(2000).switch(tasks[1], grouped.idle, INTERRUPTIBLE)

    assert grouped.lost() == {"moves_unseen": 1}
