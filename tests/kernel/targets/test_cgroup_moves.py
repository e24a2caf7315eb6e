"""Processes that were moved between cgroups, in a /proc that the tests fill."""

from dataclasses import replace

from chainbench_agent.evidence.sample import Account, OpenInterval, ProcThread, TaskState, Thread
from chainbench_agent.kernel.targets.cgroup_moves import (
    Moves,
    count_unseen_threads,
    cut_left_threads,
    decode,
    member_since,
)

BEGAN_NS = 5
INSIDE = {10, 20}


def tasks_in(proc, *states):
    """Threads 10, 11, … of process 10, in these states since 50."""
    for tid in (*range(10, 10 + len(states)), 20):
        proc.add(tid, 1)
    return [
        OpenInterval(state, 50, 0, kernel_thread=False, thread=Thread(tid, 10, "sh", BEGAN_NS))
        for tid, state in enumerate(states, start=10)
    ]


def test_threads_that_left_a_cgroup_off_the_cpus_end(proc):
    """They end when they left their CPU.  The kernel side cuts a running thread; an ended one did not leave."""
    tasks = tasks_in(proc, TaskState.BLOCKED, TaskState.BLOCKED, TaskState.PREEMPTED, TaskState.RUNNING)
    tasks.append(replace(tasks[0], thread=Thread(14, 10, "sh", BEGAN_NS), number=20))
    found, cuts = cut_left_threads(tasks, INSIDE, Moves())

    assert found == [tasks[0], *(replace(task, state=TaskState.FREE) for task in tasks[1:3]), *tasks[3:]]
    assert cuts == []
    proc.remove(11)
    assert cut_left_threads(tasks, INSIDE, Moves())[0][1] == tasks[1]


def test_threads_that_left_with_their_process_are_cut_at_the_move(proc):
    """Their state counts until then, on a CPU and off it."""
    tasks = tasks_in(proc, TaskState.RUNNING, TaskState.RUNNING, TaskState.BLOCKED, TaskState.THROTTLED)
    found, cuts = cut_left_threads(tasks, INSIDE, Moves({10: 80}))

    assert found[0] == tasks[0]
    assert [(task.state, task.since_ns, task.account) for task in found[1:]] == [
        (TaskState.FREE, 80, Account(on_cpu_ns=30)),
        (TaskState.FREE, 80, Account(blocked_ns=30)),
        (TaskState.FREE, 80, Account(throttled_ns=30)),
    ]
    assert cuts == [replace(task, until_ns=80) for task in tasks[1:]]


def test_a_move_before_the_present_state_cuts_nothing(proc):
    """The kernel side has cut it already."""
    tasks = tasks_in(proc, TaskState.RUNNING, TaskState.RUNNING)

    assert cut_left_threads(tasks, {10}, Moves({10: 40})) == (tasks, [])


def test_a_thread_is_a_member_since_it_was_last_outside():
    """Since the start of the run, since it was seen outside, or since the move of its process."""
    threads = {tid: ProcThread(pid, "sh", 0, "S", 0, 0, None) for tid, pid in ((10, 10), (11, 10), (20, 20), (21, 20))}

    assert member_since(threads, {11: 90, 21: 30}, 7, Moves({10: 80})) == {10: 80, 11: 90, 20: 7, 21: 30}


def test_threads_that_nobody_saw_between_two_moves_are_counted(proc):
    """The first and the last of them, since before the first move."""
    proc.add(10, 1)
    for tid in (10, 11, 12, 13):
        proc.thread(10, tid)
    moved = Moves({10: 80}, {10: 60})

    assert count_unseen_threads(moved, {10: 50, 11: 70}, {10, 11, 12}) == 2
    assert count_unseen_threads(Moves({10: 80}), {}, set()) == 0


def test_moves_and_cuts_are_decoded():
    moved = {(10).to_bytes(4, "little"): b"".join(n.to_bytes(8, "little") for n in (80, 0))}
    key = b"".join(n.to_bytes(size, "little") for n, size in ((5, 8), (50, 8), (11, 4), (10, 4), (0, 4), (5, 4)))

    found = decode(moved, {key: (80).to_bytes(8, "little")})

    assert (found.last_ns, found.before_ns) == ({10: 80}, {})
    (cut,) = found.cuts
    assert (cut.state, cut.since_ns, cut.until_ns, cut.thread) == (TaskState.BLOCKED, 50, 80, Thread(11, 10, "", 5))
