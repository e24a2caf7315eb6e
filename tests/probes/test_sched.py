"""The state machine of a thread (probes/machines/sched.h), run with a clock that the test holds."""

import pytest
from user_space import DEAD, FUTEX, INTERRUPTIBLE, READ, UNINTERRUPTIBLE, blocked

from chainbench_agent.evidence.sample import Account, LastWords
from chainbench_agent.kernel.targets.kernel_target import TargetKind


def test_time_on_a_cpu(kernel, thread):
    """From entering to leaving."""
    kernel.at(1300).switch(thread, kernel.idle, INTERRUPTIBLE)

    cpu = kernel.counted()["cpu"]
    assert (cpu["on_cpu_ns"], cpu["context_switches"]) == (300, 1)
    assert (cpu["voluntary_switches"], cpu["involuntary_switches"]) == (1, 0)


def test_running_since_before_the_run(kernel):
    """Cut at the beginning of the run."""
    early = kernel.task(10)
    kernel.at(400).switch(kernel.idle, early)
    kernel.at(1000).begin()

    kernel.at(1250).switch(early, kernel.idle, INTERRUPTIBLE)

    assert kernel.counted()["cpu"]["on_cpu_ns"] == 250
    assert kernel.lost() == {}


def test_asleep_since_before_the_run(kernel):
    """Cut at the beginning of the run, in the system call that is still in the saved registers."""
    early = kernel.task(10, syscall=FUTEX)
    kernel.at(1000).begin()

    kernel.at(1600).wake(early)
    kernel.at(1650).switch(kernel.idle, early)

    offcpu = kernel.counted()["offcpu"]
    assert blocked(offcpu) == {FUTEX: 600}
    assert offcpu["block_count"] == 0  # it fell asleep before
    assert offcpu["woken_wait_ns"] == 50


def test_runnable_since_before_the_run(kernel):
    """It waited from the beginning of the run; its wake-up was not seen."""
    early = kernel.task(10)
    kernel.at(1000).begin()

    kernel.at(1070).switch(kernel.idle, early)

    assert kernel.counted()["offcpu"]["preempted_wait_ns"] == 70
    assert kernel.counted()["runqlat"]["latency_ns"].sum == 70


def test_blocked_woken_running(kernel, thread):
    """Each edge closes one interval: on the CPU, blocked, waiting."""
    kernel.at(1100).switch(thread, kernel.idle, INTERRUPTIBLE)
    kernel.at(1400).wake(thread)
    kernel.at(1420).switch(kernel.idle, thread)

    counted = kernel.counted()
    assert blocked(counted["offcpu"]) == {FUTEX: 300}
    assert counted["offcpu"]["block_count"] == 1
    assert (counted["offcpu"]["woken_wait_ns"], counted["offcpu"]["preempted_wait_ns"]) == (20, 0)
    assert counted["cpu"]["wakeup_latency_ns"].sum == 20
    assert counted["cpu"]["on_cpu_ns"] == 100


def test_preempted(kernel, thread):
    """It could have gone on: an involuntary switch and a wait in the run queue, no wake-up latency."""
    other = kernel.task(11)
    kernel.at(1100).switch(thread, other)
    kernel.at(1130).switch(other, thread, INTERRUPTIBLE)

    counted = kernel.counted()
    assert counted["cpu"]["involuntary_switches"] == 1
    assert counted["offcpu"]["preempted_wait_ns"] == 30 + 100  # and `other`, from the beginning of the run
    assert counted["runqlat"]["latency_ns"].max == 100
    assert sum(counted["cpu"]["wakeup_latency_ns"].slots) == 0


def test_preempted_on_the_way_to_sleep(kernel, thread):
    """The kernel preempts a thread that has set its state but not slept yet: it stays runnable."""
    kernel.at(1100).switch(thread, kernel.idle, UNINTERRUPTIBLE, preempt=True)

    counted = kernel.counted()
    assert counted["cpu"]["involuntary_switches"] == 1
    assert counted["offcpu"]["block_count"] == 0


def test_a_pending_signal(kernel, thread):
    """Such a thread is never dequeued: it runs again without a wake-up, so it has waited, not slept."""
    kernel.at(1100).switch(thread, kernel.idle, INTERRUPTIBLE)
    kernel.at(1140).switch(kernel.idle, thread)

    counted = kernel.counted()
    assert blocked(counted["offcpu"]) == {}
    assert counted["offcpu"]["preempted_wait_ns"] == 40
    assert kernel.lost() == {}


def test_woken_before_it_slept(kernel):
    """A wake-up of a running thread that has not been seen yet ends nothing."""
    task = kernel.task(10, on_cpu=True)
    kernel.at(1000).begin()

    kernel.at(1100).wake(task)
    kernel.at(1200).switch(task, kernel.idle)

    counted = kernel.counted()
    assert counted["cpu"]["on_cpu_ns"] == 200
    assert blocked(counted["offcpu"]) == {}


def test_a_wake_up_counts_once(kernel, thread):
    """Waking what runs or is runnable changes nothing."""
    kernel.at(1010).wake(thread)
    kernel.at(1100).switch(thread, kernel.idle, INTERRUPTIBLE)
    kernel.at(1200).wake(thread)
    kernel.at(1250).wake(thread)
    kernel.at(1300).switch(kernel.idle, thread)

    offcpu = kernel.counted()["offcpu"]
    assert (blocked(offcpu), offcpu["woken_wait_ns"]) == ({FUTEX: 100}, 100)


def test_born_in_the_run(kernel):
    """From its creation on it waits as if woken; it did not exist before."""
    kernel.at(1000).begin()
    child = kernel.task(10)

    kernel.at(1500).born(child)
    kernel.at(1530).switch(kernel.idle, child)

    counted = kernel.counted()
    assert counted["offcpu"]["woken_wait_ns"] == 30
    assert counted["cpu"]["wakeup_latency_ns"].max == 30


def test_an_unseen_switch(kernel):
    """Another thread leaves than the one that entered: how long it ran is unknown, so nothing is added."""
    entered, other = kernel.task(10), kernel.task(11)
    kernel.at(1000).begin()
    kernel.at(1100).switch(kernel.idle, entered)
    kernel.at(1300).switch(other, kernel.idle, INTERRUPTIBLE)

    counted = kernel.counted(closed=True)
    assert counted["cpu"]["on_cpu_ns"] == 0
    assert kernel.lost() == {"unseen_switches": 1}


def test_a_thread_that_left_and_returned_unseen(kernel, thread):
    """The kernel's own account gives its time on CPUs since then; the rest is unexplained."""
    kernel.account(thread, 5_000)
    kernel.at(1100).switch(thread, kernel.idle)
    kernel.at(1120).switch(kernel.idle, thread)  # it leaves, and nobody sees it
    kernel.at(1500).switch(kernel.idle, thread)
    kernel.account(thread, 5_190)
    kernel.at(1540).switch(thread, kernel.idle, INTERRUPTIBLE)
    kernel.at(1600).wake(thread)
    kernel.at(1610).switch(kernel.idle, thread)
    kernel.at(1650).switch(thread, kernel.idle, INTERRUPTIBLE)

    assert kernel.counted()["cpu"]["on_cpu_ns"] == 100 + 190 + 40
    assert kernel.lost() == {"unseen_switches": 1}


def test_a_thread_that_entered_unseen(kernel, thread):
    """Its wait and its time on the CPU are known as a sum only, and the kernel has the latter."""
    other = kernel.task(11)
    kernel.account(thread, 5_000)
    kernel.at(1100).switch(thread, other)  # `other` leaves for `thread`, and nobody sees it
    kernel.account(thread, 5_150)
    kernel.at(1400).switch(thread, kernel.idle, INTERRUPTIBLE)

    (task,) = kernel.sample().tasks[:1]
    assert task.account == Account(on_cpu_ns=100 + 150)
    assert kernel.lost() == {"unseen_switches": 1}


@pytest.mark.parametrize(("exec_ns", "on_cpu_ns"), [(5_800, 100 + 420), (4_000, 100 + 40)], ids=["more", "less"])
def test_the_kernels_account_is_not_taken_beyond_what_can_be(kernel, thread, exec_ns, on_cpu_ns):
    """No more than the time that went by, and no less than what was seen."""
    kernel.account(thread, 5_000)
    kernel.at(1100).switch(thread, kernel.idle)
    kernel.at(1120).switch(kernel.idle, thread)
    kernel.at(1500).switch(kernel.idle, thread)
    kernel.account(thread, exec_ns)
    kernel.at(1540).switch(thread, kernel.idle, INTERRUPTIBLE)

    assert kernel.counted()["cpu"]["on_cpu_ns"] == on_cpu_ns


def test_the_kernels_account_of_a_thread_that_was_not_seen_before(kernel):
    """Its account at the beginning is known only if it did not run then; otherwise no time counts."""
    early, asleep = kernel.task(10), kernel.task(11)
    for task in (early, asleep):
        kernel.account(task, 5_000)
    kernel.at(1000).begin()
    kernel.at(1100).switch(kernel.idle, kernel.task(12), cpu=1)
    kernel.at(1100).wake(asleep)
    for task in (early, asleep):
        kernel.account(task, 5_080)
    kernel.at(1200).switch(early, kernel.idle, INTERRUPTIBLE, cpu=1)  # nobody saw it enter
    kernel.at(1200).switch(kernel.idle, kernel.task(13), cpu=2)
    kernel.at(1300).switch(asleep, kernel.idle, INTERRUPTIBLE, cpu=2)

    accounts = {task.tid: task.account.on_cpu_ns for task in kernel.sample().tasks}
    assert (accounts[10], accounts[11]) == (0, 80)


@pytest.mark.parametrize(
    ("kind", "born", "checked"),
    [
        (TargetKind.TREE, True, 1),
        (TargetKind.TREE, False, 1),
        (TargetKind.CGROUP, True, 1),
        (TargetKind.CGROUP, False, 0),
    ],
)
def test_the_last_word_on_a_thread_that_dies(kernel, kind, born, checked):
    """Our account and the kernel's are added up, but not of a cgroup's thread whose birth was not seen.

    It may have joined, and then the kernel's account has its time outside of the cgroup as well.
    """
    task = kernel.task(10)
    kernel.move(task, 7)
    if kind == TargetKind.TREE:
        kernel.tree(10)
    else:
        kernel.cgroup(7, 1)
    kernel.at(1000).begin()
    if born:
        kernel.fire("sched_wakeup_new_0", task)
    kernel.at(1010).switch(kernel.idle, task)
    kernel.account(task, 9_095, 13)
    kernel.at(1100).switch(task, kernel.idle, DEAD)

    before, after = kernel.first.members.last_words, kernel.sample().members.last_words
    grown = [getattr(after, name) - getattr(before, name) for name in LastWords.__slots__]
    assert grown == [checked * n for n in (90, 10, 9_095, 13)]


def test_entering_twice(kernel, thread):
    """A thread that enters another CPU while it is taken to run has left unseen: counted, and no wait."""
    kernel.at(1300)
    kernel.switch(kernel.idle, thread, cpu=1)
    kernel.at(1400)
    kernel.switch(thread, kernel.idle, INTERRUPTIBLE, cpu=1)

    counted = kernel.counted()
    assert counted["cpu"]["on_cpu_ns"] == 100
    assert counted["offcpu"]["preempted_wait_ns"] == 0
    assert kernel.lost() == {"unseen_switches": 1}


@pytest.mark.usefixtures("thread")
def test_open_at_the_end(kernel):
    """Running, preempted, woken and asleep: each is cut at the end of the run, and added to what it was."""
    preempted, woken, asleep = (kernel.task(pid, syscall=READ) for pid in (11, 12, 13))
    for cpu, task in enumerate((preempted, woken, asleep), start=1):
        kernel.switch(kernel.idle, task, cpu=cpu)
    kernel.at(1100)
    kernel.switch(preempted, kernel.idle, cpu=1)
    kernel.switch(woken, kernel.idle, INTERRUPTIBLE, cpu=2)
    kernel.switch(asleep, kernel.idle, INTERRUPTIBLE, cpu=3)
    kernel.at(1150).wake(woken)
    kernel.at(1500).end()

    counted = kernel.counted(closed=True)
    assert counted["cpu"]["on_cpu_ns"] == 500 + 3 * 100
    assert counted["offcpu"]["preempted_wait_ns"] == 400
    assert counted["offcpu"]["woken_wait_ns"] == 350
    assert blocked(counted["offcpu"]) == {READ: 50 + 400}
