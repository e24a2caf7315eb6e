"""Runs of some modules: without the hook of switches, threads are still distinguished; idle modules count nothing."""

from user_space import INTERRUPTIBLE, READ

from chainbench_agent.loading.unit_sizes import TASK_RECORDS
from chainbench_agent.probes import CATALOG


def call(kernel, thread):
    """A system call; the answer is how many were counted so far."""
    kernel.fire("sys_enter_0", 0, READ, current=thread)
    return kernel.counted()["syscalls"]["total"]


def test_a_number_is_used_again(kernel):
    """The second of three threads with one number is not in the target, and is not counted."""
    parent, other = kernel.task(5), kernel.task(6)
    kernel.at(1000).tree(5).begin()
    counted = []
    for whose in (parent, other, parent):
        child = kernel.fork(whose, kernel.task(10))
        counted.append(call(kernel, child))
        kernel.exit(child)

    assert counted == [1, 1, 2]
    assert kernel.lost() == {}


def test_what_a_thread_does_on_its_way_out(kernel):
    """It closes its files after it was said to end: that is its own, though its process is gone from the tree."""
    child = kernel.task(10)
    kernel.at(1000).tree(10).begin()
    kernel.exit(child)

    assert kernel.tree_now() == set()
    assert call(kernel, child) == 1


def test_ended_threads_are_not_in_the_way(kernel):
    """Forty threads whose numbers lead to one record all find room, as each ends before the next begins."""
    parent = kernel.task(5)
    kernel.at(1000).tree(5).begin()
    for i in range(40):
        child = kernel.fork(parent, kernel.task(10 + i * TASK_RECORDS))
        assert call(kernel, child) == i + 1
        kernel.exit(child)

    assert kernel.sample().members.threads == 40  # the parent only forked: /proc tells of it
    assert kernel.lost() == {}


def test_every_thread_that_ends_was_seen(kernel):
    """A thread that did nothing that counts is seen when it ends, also if its process goes on."""
    kernel.at(1000).tree(5).begin()
    kernel.exit(kernel.task(6, 5), left=1)

    assert kernel.sample().members.threads == 1
    assert kernel.tree_now() == {5}


def test_who_runs_keeps_its_record_until_it_leaves(kernel, thread):
    """Where switches are watched, an end is an end only at the last of them, whoever is forked in between."""
    kernel.exit(thread)
    for i in range(1, 9):
        kernel.fork(kernel.idle, kernel.task(10 + i * TASK_RECORDS))
    kernel.at(1100).switch(thread, kernel.idle, INTERRUPTIBLE)

    assert kernel.counted()["cpu"]["on_cpu_ns"] == 100
    assert kernel.lost() == {}


def test_idle_modules_are_passed_over(kernel, thread):
    """The programs that they share run on for the others."""
    names = [module.name for module in CATALOG]
    kernel.idle_modules = 1 << names.index("cpu") | 1 << names.index("syscalls")
    kernel.begin()
    kernel.at(1100).switch(thread, kernel.idle, INTERRUPTIBLE)
    kernel.wake(thread)
    kernel.at(1200).switch(kernel.idle, thread)

    assert call(kernel, thread) == 0
    assert kernel.counted()["cpu"]["context_switches"] == 0
    assert kernel.counted()["offcpu"]["block_count"] > 0
