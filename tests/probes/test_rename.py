"""Threads and processes that rename themselves: the last name is reported (probes/machines/follow.h)."""

import ctypes

import pytest
from user_space import DEAD, INTERRUPTIBLE

LEADER, SECOND = 10, 11


def rename(kernel, task, name):
    """Does as the kernel does: fires the tracepoint with the name, and then copies it."""
    text = ctypes.create_string_buffer(name)
    kernel.fire("task_rename_0", task, ctypes.addressof(text), current=task)
    kernel.tell("shim_set_comm", task, name)


@pytest.fixture
def threads(kernel):
    """A leader and a second thread of a process, both seen."""
    leader = kernel.task(LEADER, comm="server")
    second = kernel.task(SECOND, tgid=LEADER, comm="server")
    kernel.tell("shim_set_leader", second, ctypes.c_void_p(leader.address))
    kernel.at(1000).tree(LEADER).begin()
    for task in (leader, second):
        kernel.switch(kernel.idle, task)
        kernel.at(kernel.now_ns + 5_000_000).switch(task, kernel.idle, INTERRUPTIBLE)
    return leader, second


def names(kernel):
    return {task.thread.tid: task.thread.command for task in kernel.sample().tasks}


def test_a_thread(kernel, threads):
    """Only this thread is renamed: the other threads of its process have the old name."""
    rename(kernel, threads[1], b"decoder-1")

    assert names(kernel) == {LEADER: "server", SECOND: "decoder-1"}
    assert kernel.processes()[LEADER].command == "server"


def test_a_process(kernel, threads):
    """A process is called as its leader is; the last name counts, and it is cut as the kernel cuts it."""
    for name in (b"first", b"a name that is too long"):
        rename(kernel, threads[0], name)

    assert names(kernel) == {LEADER: "a name that is ", SECOND: "server"}
    assert kernel.processes()[LEADER].command == "a name that is "


def test_a_shorter_name(kernel, threads):
    """Nothing is left of the longer one."""
    rename(kernel, threads[1], b"x")
    rename(kernel, threads[0], b"")

    assert names(kernel) == {LEADER: "", SECOND: "x"}


def test_a_thread_that_ended(kernel, threads):
    """It is listed with its last name."""
    _, second = threads
    rename(kernel, second, b"decoder-1")
    kernel.exit(second, left=1)
    kernel.switch(second, kernel.idle, DEAD)

    assert [thread.command for thread in kernel.sample().members.ended_singly] == ["decoder-1"]


def test_a_thread_that_takes_its_leaders_number(kernel, threads):
    """It executes a program, and is called after that before its record has followed: the leader keeps its name."""
    leader, second = threads
    kernel.tell("shim_set_pid", leader, SECOND)
    kernel.tell("shim_set_pid", second, LEADER)
    rename(kernel, second, b"new")

    assert names(kernel) == {LEADER: "server", SECOND: "server"}
    assert kernel.processes()[LEADER].command == "new"


@pytest.mark.usefixtures("threads")
def test_nobody_is_met_by_a_name(kernel):
    """A thread that made no move has no record, and gets none."""
    stranger = kernel.task(30, comm="other")
    rename(kernel, stranger, b"another")

    assert set(names(kernel)) == {LEADER, SECOND}
    assert kernel.lost() == {}
