"""Targets (probes/lib/target.h, follow.h): the events of a process tree, a cgroup, or the whole machine count."""

import ctypes

import pytest
from user_space import AGENT, DEAD, FUTEX, INTERRUPTIBLE, READ, UserSpace, blocked, fused

from chainbench_agent.evidence.sample import Account
from chainbench_agent.loading.unit_sizes import MEMBERS, TASK_RECORDS

ROOT, OTHER = 10, 20
OURS = (5, 6)
"""The cgroup that is the target: 6, a child of 5, which is a child of the hierarchy's root."""


def seen(kernel, *tasks):
    """Which of them have an open interval that counts: it is in the target, and at work."""
    counted = {task.thread.tid for task in kernel.sample().tasks}
    return [task.pid in counted for task in tasks]


def on_cpu(kernel, task, ns=100):
    """How much of `ns` on a CPU was counted."""
    before = kernel.counted()["cpu"]["on_cpu_ns"]
    kernel.switch(kernel.idle, task)
    kernel.at(kernel.now_ns + ns).switch(task, kernel.idle, INTERRUPTIBLE)
    kernel.wake(task)
    return kernel.counted()["cpu"]["on_cpu_ns"] - before


def calls(kernel, task):
    """How many of one system call and one program were counted."""
    before = kernel.counted()
    kernel.fire("sys_enter_0", 0, READ, current=task)
    kernel.fire("sched_process_exec_0", task, task.pid, 0, current=task)
    after = kernel.counted()
    return [
        sum(after["syscalls"]["calls"]) - sum(before["syscalls"]["calls"]),
        after["exec"]["exec_count"] - before["exec"]["exec_count"],
    ]


@pytest.fixture
def root(kernel):
    return kernel.task(ROOT, comm="root")


@pytest.fixture
def other(kernel):
    return kernel.task(OTHER, comm="other")


@pytest.fixture
def tree(kernel, root):  # noqa: ARG001 - a tree has a root
    return kernel.at(1000).tree(ROOT).begin()


# ---- a process tree


def test_a_member_and_another(tree, root, other):
    """Everything of the one, nothing of the other."""
    assert on_cpu(tree, root) == 100
    assert on_cpu(tree, other) == 0
    assert calls(tree, root) == [1, 1]
    assert calls(tree, other) == [0, 0]
    assert seen(tree, root, other) == [True, False]
    assert tree.lost() == {}


def test_a_child_is_a_member_before_it_runs(tree, root, other):
    """From its first moment; the child of a stranger is a stranger."""
    ours, theirs = tree.fork(root, tree.task(11)), tree.fork(other, tree.task(21))
    assert tree.tree_now() == {ROOT, 11}

    for child in (ours, theirs):
        tree.at(tree.now_ns + 10).born(child)
    begun = tree.now_ns
    tree.at(begun + 5).switch(tree.idle, ours)
    tree.at(begun + 25).switch(ours, theirs, INTERRUPTIBLE)
    tree.at(begun + 85).switch(theirs, tree.idle, INTERRUPTIBLE)

    counted = tree.counted()
    assert counted["cpu"]["on_cpu_ns"] == 20
    assert counted["offcpu"]["woken_wait_ns"] == 15
    assert counted["exec"]["forks"] == 1
    assert calls(tree, ours) == [1, 1]
    assert calls(tree, theirs) == [0, 0]


def test_grandchildren(tree, root):
    """Descendants are members at any depth, also if those in between have ended."""
    parent = root
    for pid in range(11, 16):
        child = tree.fork(parent, tree.task(pid))
        if parent is not root:
            tree.exit(parent)
        parent = child

    assert tree.tree_now() == {ROOT, 15}
    assert on_cpu(tree, parent) == 100
    assert tree.sample().members.processes == 5


def test_a_thread_is_no_process(tree, root):
    """It is in its group's place, which is there already."""
    thread = tree.fork(root, tree.task(11, tgid=ROOT))

    assert tree.tree_now() == {ROOT}
    assert tree.sample().members.processes == 0
    assert tree.counted()["exec"]["threads_created"] == 1
    assert on_cpu(tree, thread) == 100


def test_a_process_forked_by_a_thread(tree, root):
    """A child is a member whichever thread of a member forks it."""
    thread = tree.fork(root, tree.task(11, tgid=ROOT))
    tree.fork(thread, tree.task(12))

    assert tree.tree_now() == {ROOT, 12}


def test_the_leader_may_end_first(tree, root):
    """A group is a member while any of its threads lives."""
    thread = tree.fork(root, tree.task(11, tgid=ROOT))

    tree.exit(root, left=1)
    assert tree.tree_now() == {ROOT}
    tree.fork(thread, tree.task(12))
    tree.exit(thread)

    assert tree.tree_now() == {12}


def test_the_end_of_a_stranger(tree, other):
    """Changes nothing."""
    tree.exit(other)

    assert tree.tree_now() == {ROOT}
    assert tree.lost() == {}


def test_a_number_is_used_again_by_a_stranger(tree, root, other):
    """A new process with the number of an ended member is not one."""
    tree.switch(tree.idle, root)
    tree.exit(root)
    tree.at(1100).switch(root, tree.idle, DEAD)

    tree.fork(other, successor := tree.task(ROOT))
    tree.born(successor)

    assert on_cpu(tree, successor) == 0
    assert calls(tree, successor) == [0, 0]
    assert tree.counted()["cpu"]["on_cpu_ns"] == 100


def test_it_still_leaves_its_cpu(tree, root):
    """A thread that runs from before the run until it is killed makes its only switch as a member no more."""
    tree.at(1300).exit(root)
    assert tree.tree_now() == set()
    tree.at(1310).switch(root, tree.idle, DEAD)

    assert tree.counted()["cpu"]["on_cpu_ns"] == 310
    ended = tree.sample().members
    assert (ended.ended_threads, ended.ended.wall_ns, ended.ended.on_cpu_ns) == (1, 310, 310)


def test_seeding(kernel, root, other):
    """While the agent looks around, forks and ends are followed and nothing is counted."""
    kernel.at(500).tree(ROOT)
    before = kernel.sample()

    child = kernel.fork(root, kernel.task(11))
    kernel.fork(other, kernel.task(21))
    kernel.exit(kernel.fork(root, kernel.task(12)))
    kernel.switch(kernel.idle, child)
    kernel.at(600).switch(child, kernel.idle, INTERRUPTIBLE)
    kernel.fire("sys_enter_0", 0, READ, current=child)

    after = kernel.sample()
    assert kernel.tree_now() == {ROOT, 11}
    assert after.modules == before.modules
    assert after.tasks == ()
    assert after.members.threads == before.members.threads
    kernel.at(1000).begin()
    assert on_cpu(kernel, child) == 100


def test_off_means_off(kernel, tree, root):
    """After the run nobody is followed any more."""
    kernel.at(2000).end()
    kernel.fork(root, kernel.task(11))
    kernel.exit(root)

    assert tree.tree_now() == {ROOT}


def test_members_without_end(tree, root):
    """A process that finds no room is counted as lost, and is not a member."""
    room = tree.get("cb_members_entries")
    assert room == MEMBERS
    ctypes.memset((ctypes.c_uint8 * room).in_dll(tree.library, "cb_members_used"), 1, room)

    child = tree.fork(root, tree.task(11))

    assert tree.lost() == {"members_full": 1}
    assert on_cpu(tree, child) == 0
    assert tree.sample().members.processes == 0


def test_the_agent_is_in_no_target(kernel):
    """The agent does not count, even if it is a descendant of the target."""
    agent = kernel.task(AGENT + 50, tgid=AGENT)
    kernel.at(1000).tree(AGENT, ROOT).begin()

    assert on_cpu(kernel, agent) == 0
    assert calls(kernel, agent) == [0, 0]


def test_migrations(tree, root, other):
    for task in (root, other, root):
        tree.fire("sched_migrate_task_0", task, 1)

    assert tree.counted()["cpu"]["cpu_migrations"] == 2


def test_kernel_threads_of_a_target_are_off_the_cpus(kernel):
    """Their sleep is blocked time if they are the target; only otherwise is it idleness."""
    worker = kernel.task(ROOT, kthread=True)
    kernel.at(1000).tree(ROOT).begin()
    kernel.switch(kernel.idle, worker)
    kernel.at(1010).switch(worker, kernel.idle, INTERRUPTIBLE)
    kernel.at(1050).wake(worker)
    kernel.at(1055).switch(kernel.idle, worker)

    offcpu = kernel.counted()["offcpu"]
    assert sum(blocked(offcpu).values()) == 40
    assert offcpu["woken_wait_ns"] == 5


def test_population(tree, root, other):
    """Threads are those that were seen at work, once each."""
    for task in (root, other, root, tree.fork(root, tree.task(11))):
        on_cpu(tree, task)

    members = tree.sample().members
    assert (members.processes, members.threads) == (1, 2)


def test_blocked_time_by_thread(tree, root, other):
    """Each thread of the target with its wait; those of others are not recorded."""
    tree.tell("shim_set_syscall", root, ctypes.c_uint64(FUTEX))
    for task in (root, other):
        tree.at(tree.now_ns + 10).switch(tree.idle, task)
        tree.at(tree.now_ns + 10).switch(task, tree.idle, INTERRUPTIBLE)
        tree.at(tree.now_ns + 70).wake(task)

    by_thread = tree.hash("offcpu_by_thread_ns")
    key = (1000).to_bytes(8, "little") + ROOT.to_bytes(4, "little") + FUTEX.to_bytes(4, "little")
    assert by_thread == {key: (70).to_bytes(8, "little")}


def test_a_name_is_that_of_the_program(tree, root):
    """The one that the thread runs at present."""
    on_cpu(tree, root)
    tree.tell("shim_set_comm", root, b"program")
    assert [task.thread.command for task in tree.sample().tasks] == ["root"]
    tree.fire("sched_process_exec_0", root, ROOT, 0, current=root)

    assert [task.thread.command for task in tree.sample().tasks] == ["program"]


def test_a_record_taken_over_by_a_system_call(tree, root):
    """Such hooks are not given the time, and a thread on another's record has not been there since boot."""
    tree.at(1100).switch(root, tree.idle, DEAD)
    double = tree.task(ROOT + TASK_RECORDS, tgid=ROOT)

    tree.at(1500).fire("sys_enter_0", 0, READ, current=double)
    tree.at(1520)
    tree.switch(double, tree.idle, INTERRUPTIBLE, cpu=1)

    assert tree.counted()["cpu"]["on_cpu_ns"] == 100 + 20
    assert tree.lost() == {}


# ---- a cgroup


@pytest.fixture(params=["ancestors", "ancestor_ids"])
def grouped(request, kernel, compile_unit):
    """On kernels since 6.1, and before."""
    if request.param == "ancestors":
        return kernel
    text = fused(has_field=lambda field: field != "cgroup.ancestors").text
    assert "#define CB_HAS_CGROUP_ANCESTORS" not in text
    return UserSpace(ctypes.CDLL(str(compile_unit(text, request.node.name.replace("/", "_")))))


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        (OURS, True),
        ((*OURS, 7), True),
        ((), False),
        ((5,), False),
        ((5, 7), False),
        ((7, 6), True),  # ids are unique: this cannot be, and shows that only the level is looked at
        ((6,), False),
        ((5, 7, 6), False),
    ],
    ids=["itself", "below", "root", "parent", "sibling", "level", "smaller level", "deeper"],
)
def test_in_a_cgroup(grouped, path, inside):
    """A cgroup has itself and all below it in it; neither its parents nor its siblings."""
    task = grouped.task(ROOT)
    grouped.move(task, *path)
    grouped.at(1000).cgroup(OURS[-1], level=2).begin()

    assert on_cpu(grouped, task) == 100 * inside
    assert calls(grouped, task) == [inside, inside]
    assert seen(grouped, task) == [inside]


def test_the_root_cgroup_is_everybody(grouped):
    """Every process is in the root cgroup, and counts, but the agent."""
    tasks = [grouped.task(ROOT), grouped.task(AGENT + 50, tgid=AGENT)]
    grouped.move(tasks[0], *OURS)
    grouped.at(1000).cgroup(1, level=0).begin()

    assert [on_cpu(grouped, task) for task in tasks] == [100, 0]


def test_moving_out_and_in_again(grouped):
    """With effect from the next thing that it does."""
    task = grouped.task(ROOT)
    grouped.move(task, *OURS)
    grouped.at(1000).cgroup(OURS[-1], level=2).begin()

    found = [on_cpu(grouped, task), *calls(grouped, task)]
    grouped.move(task, 5, 9)
    found += [on_cpu(grouped, task), *calls(grouped, task)]
    grouped.move(task, *OURS, 8)
    found += [on_cpu(grouped, task), *calls(grouped, task)]

    assert found == [100, 1, 1, 0, 0, 0, 100, 1, 1]


def test_the_account_of_who_moves(kernel):
    """It has only the time inside; each stay has an account of its own, under the name that the thread has then.

    The time of the move is not known: on a CPU it is taken to be at the next event, else when its state began.
    """
    task = kernel.task(ROOT, comm="before")
    kernel.move(task, 9)
    kernel.at(1000).cgroup(OURS[-1], level=2).begin()
    kernel.at(11_000).switch(kernel.idle, task)
    kernel.tell("shim_set_comm", task, b"inside")
    kernel.move(task, *OURS)
    kernel.at(11_000).enter(task, 0)
    kernel.at(14_000).switch(task, kernel.idle, INTERRUPTIBLE)  # it ran for 3000
    kernel.at(18_000).wake(task)  # slept for 4000
    kernel.at(18_500).switch(kernel.idle, task)  # waited for 500
    kernel.move(task, 9)
    kernel.enter(task, 0)
    kernel.at(30_000).switch(task, kernel.idle, INTERRUPTIBLE)  # ran outside
    kernel.at(40_000).wake(task)

    members = kernel.sample().members
    ((thread, account),) = members.ended_singly.items()
    assert (thread.tid, thread.command, thread.begin_ns) == (ROOT, "inside", 11_000)
    assert account == Account(wall_ns=7500, on_cpu_ns=3000, blocked_ns=4000, runnable_ns=500)
    assert (members.ended_threads, members.ended) == (1, account)
    assert kernel.sample().tasks == ()

    kernel.move(task, *OURS)
    kernel.at(42_000).switch(kernel.idle, task)
    (back,) = kernel.sample().tasks
    assert (back.thread.begin_ns, back.account) == (40_000, Account(runnable_ns=2000))
    assert (members.threads, kernel.sample().members.threads) == (1, 2)


def test_forks_in_a_cgroup_make_no_tree(kernel):
    """The kernel puts the child where its parent is; there is nothing to follow."""
    parent, child = kernel.task(ROOT), kernel.task(11)
    kernel.move(parent, *OURS)
    kernel.move(child, *OURS)
    kernel.at(1000).cgroup(OURS[-1], level=2).begin()

    kernel.fork(parent, child)
    kernel.born(child)
    kernel.exit(parent)

    assert kernel.tree_now() == {child.pid}  # the parent did no work in the run
    assert on_cpu(kernel, child) == 100
    assert kernel.counted()["exec"]["forks"] == 1


def test_processes_of_a_cgroup(kernel):
    """Each process that did something in it counts once, with any number of threads, and of returns to it."""
    first, second, stranger = (kernel.task(pid, tgid=tgid) for pid, tgid in ((ROOT, ROOT), (11, ROOT), (OTHER, OTHER)))
    kernel.at(1000).cgroup(OURS[-1], level=2).begin()
    for path in (OURS, (9,), OURS):
        for task in (first, second):
            kernel.move(task, *path)
            on_cpu(kernel, task)
    on_cpu(kernel, stranger)
    assert (kernel.sample().members.processes, kernel.tree_now()) == (1, {ROOT})

    kernel.exit(second, left=1)
    kernel.switch(kernel.idle, first)
    kernel.exit(first)
    successor = kernel.task(ROOT)
    kernel.move(successor, *OURS)
    kernel.switch(first, successor, DEAD)
    kernel.switch(successor, kernel.idle, INTERRUPTIBLE)

    assert kernel.sample().members.processes == 2  # another process, with the number of the first
    assert kernel.lost() == {}


def test_a_cgroup_with_too_many_processes(kernel):
    """They are measured all the same; processes that were not counted are reported as lost."""
    task = kernel.task(ROOT)
    kernel.move(task, *OURS)
    kernel.at(1000).cgroup(OURS[-1], level=2).begin()
    ctypes.memset((ctypes.c_uint8 * MEMBERS).in_dll(kernel.library, "cb_members_used"), 1, MEMBERS)

    assert on_cpu(kernel, task) == 100
    assert kernel.lost() == {"members_full": 1}


# ---- the whole machine


def test_the_whole_machine(kernel, root, other):
    """All threads count, no process is followed, and no thread is recorded by itself."""
    kernel.at(1000).begin()
    child = kernel.fork(root, kernel.task(11))

    assert [on_cpu(kernel, task) for task in (root, other, child)] == [100, 100, 100]
    assert [calls(kernel, task) for task in (root, other)] == [[1, 1], [1, 1]]
    kernel.switch(kernel.idle, child)
    kernel.exit(child)
    kernel.switch(child, kernel.idle, DEAD)
    assert kernel.tree_now() == set()
    assert kernel.hash("cb_ended_threads") == {}
    assert kernel.hash("offcpu_by_thread_ns") == {}
    assert kernel.sample().members.processes == 0
