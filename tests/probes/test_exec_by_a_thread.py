"""A thread that executes a program exchanges numbers with its leader (cb_exchange() in probes/machines/sched.h)."""

from itertools import permutations

import pytest
from user_space import DEAD, INTERRUPTIBLE, READ, Task

from chainbench_agent.evidence.sample import Account, Thread

LEADER, SECOND = 10, 11


class Process:
    """A leader on CPU 1 and another thread on CPU 0; every step is 10 µs after the one before."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.leader = kernel.task(LEADER, comm="old")
        self.second = kernel.task(SECOND, tgid=LEADER, comm="old", syscall=READ)

    def later(self):
        self.kernel.at(self.kernel.now_ns + 10_000)

    def exchange(self):
        """Does what the kernel's exchange_tids() does, for which there is no event."""
        self.kernel.tell("shim_set_pid", self.leader, SECOND)
        self.kernel.tell("shim_set_pid", self.second, LEADER)
        self.leader, self.second = Task(self.leader.address, SECOND), Task(self.second.address, LEADER)

    def dead(self):
        """The leader leaves its CPU for good."""
        self.kernel.switch(self.leader, self.kernel.idle, DEAD, cpu=1)

    def away(self):
        """The second thread sleeps, is woken, and runs again after 30 ns."""
        self.kernel.switch(self.second, self.kernel.idle, INTERRUPTIBLE)
        self.kernel.at(self.kernel.now_ns + 20).wake(self.second)
        self.kernel.at(self.kernel.now_ns + 10).switch(self.kernel.idle, self.second)

    def call(self):
        """Something is done that is counted: it reads its program from the disk, say."""
        self.kernel.fire("sys_enter_0", 0, READ, current=self.second)

    def exec(self):
        self.kernel.tell("shim_set_comm", self.second, b"new")
        self.kernel.fire("sched_process_exec_0", self.second, SECOND, 0, current=self.second)


@pytest.fixture
def process(kernel):
    process = Process(kernel)
    kernel.at(1000).tree(LEADER).begin()
    kernel.switch(kernel.idle, process.leader, cpu=1)
    kernel.switch(kernel.idle, process.second)
    return process


ORDERS = [
    order
    for order in permutations(("exchange", "dead", "away", "exec"))
    if order.index("exchange") < order.index("exec")
]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_in_any_order(kernel, process, order):
    """One line each, whole: the leader's until it left its CPU, the other's until now, under its first number."""
    ended_ns = 0
    for step in order:
        process.later()
        ended_ns = kernel.now_ns if step == "dead" else ended_ns
        getattr(process, step)()
    process.later()
    kernel.end()

    members = kernel.sample().members
    wall_ns = ended_ns - 1000
    assert members.ended_singly == {Thread(LEADER, LEADER, "old", 1000): Account(wall_ns, wall_ns)}
    (second,) = kernel.sample().tasks
    assert (second.thread, second.tid) == (Thread(SECOND, LEADER, "new", 1000), LEADER)
    on_cpu_ns = second.account.on_cpu_ns + kernel.now_ns - second.since_ns
    assert (on_cpu_ns, second.account.blocked_ns, second.account.runnable_ns) == (50_000, 20, 10)
    assert kernel.counted(closed=True)["cpu"]["on_cpu_ns"] == wall_ns + on_cpu_ns
    assert members.threads == 2
    assert kernel.lost() == {}


def test_its_end(kernel, process):
    """All that it did is one account: also the sleep from before, which has the name of its first number."""
    for step in ("away", "dead", "exchange", "exec"):
        process.later()
        getattr(process, step)()
    process.later()
    kernel.switch(process.second, kernel.idle, DEAD)

    ended = kernel.sample().members.ended_singly
    assert ended[Thread(SECOND, LEADER, "new", 1000)] == Account(50_030, 50_000, 10, 20)
    key = (1000).to_bytes(8, "little") + SECOND.to_bytes(4, "little") + READ.to_bytes(4, "little")
    assert kernel.hash("offcpu_by_thread_ns") == {key: (20).to_bytes(8, "little")}
    assert kernel.sample().tasks == ()


def test_what_it_did_before_it_was_noticed(kernel, process):
    """It has one record under its old and its new number: no third thread is in the sample."""
    for step in ("dead", "exchange", "call", "exec"):
        process.later()
        getattr(process, step)()

    (second,) = kernel.sample().tasks
    assert second.thread == Thread(SECOND, LEADER, "new", 1000)
    assert kernel.counted()["syscalls"]["calls"][READ] == 1


def test_where_no_switch_was_seen_yet(kernel):
    """The run began while the thread was in the midst of it: what it did in the run is its own all the same."""
    process = Process(kernel)
    kernel.at(1000).tree(LEADER).begin()
    process.call()
    process.exchange()
    process.later()
    process.exec()
    process.later()
    kernel.switch(process.second, kernel.idle, INTERRUPTIBLE)

    (second,) = kernel.sample().tasks
    assert (second.thread, second.account) == (Thread(SECOND, LEADER, "new", 1000), Account(on_cpu_ns=20_000))
    assert kernel.lost() == {}


def test_the_leader_itself(kernel, process):
    """Nothing is exchanged."""
    process.later()
    kernel.tell("shim_set_comm", process.leader, b"new")
    kernel.fire("sched_process_exec_0", process.leader, LEADER, 0, cpu=1, current=process.leader)

    assert {task.thread for task in kernel.sample().tasks} == {
        Thread(LEADER, LEADER, "new", 1000),
        Thread(SECOND, LEADER, "old", 1000),
    }
