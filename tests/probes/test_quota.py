"""Throttling by a CPU quota (probes/machines/quota.h), as each kernel version exposes it."""

import ctypes
import shutil

import pytest
from user_space import FUTEX, INTERRUPTIBLE, UserSpace, blocked, fused

from chainbench_agent.evidence.sample import Account, TaskState

BY_THREAD = "task_struct.throttled"
SELF_TIME, PELT_TIME = "cfs_rq.throttled_clock_self_time", "cfs_rq.throttled_clock_pelt_time"
KERNELS = {"6.18": (), "6.12": (BY_THREAD,), "6.1": (BY_THREAD, SELF_TIME), "5.10": (BY_THREAD, SELF_TIME, PELT_TIME)}
"""Kernel version → the members that it lacks."""
WHOLE = 1
"""A process is moved with all its threads."""
BEFORE_6_18 = ("6.12", "6.1", "5.10")


@pytest.fixture(scope="session")
def units(compile_unit):
    """A unit for each of these kernels."""
    return {
        name: compile_unit(fused(has_field=lambda field, lacks=lacks: field not in lacks).text, f"quota-{name}")
        for name, lacks in KERNELS.items()
    }


@pytest.fixture(params=KERNELS)
def name(request):
    return request.param


@pytest.fixture
def kernel(units, tmp_path, name):
    return UserSpace(ctypes.CDLL(str(shutil.copy(units[name], tmp_path))))


before_6_18 = pytest.mark.parametrize("name", BEFORE_6_18)


@pytest.fixture
def limited(kernel, thread):
    """The thread, on CPU 0 since time 1000, in a cgroup below one that has a quota."""
    kernel.limit(thread)
    kernel.tell("shim_set_group_below", thread)
    return thread


def account(kernel):
    return kernel.sample().tasks[0].account


def test_throttled_and_then_runnable(kernel, limited):
    """Throttled until the quota is refilled, in the run queue from then on, and never blocked."""
    kernel.at(1090).throttle(limited)
    kernel.at(1100).switch(limited, kernel.idle)
    kernel.at(1400).unthrottle(limited)
    kernel.at(1470).switch(kernel.idle, limited)

    counted = kernel.counted()
    assert counted["offcpu"]["throttled_wait_ns"] == 300
    assert (counted["offcpu"]["preempted_wait_ns"], counted["offcpu"]["woken_wait_ns"]) == (70, 0)
    assert counted["runqlat"]["latency_ns"].sum == 70
    assert sum(counted["runqlat"]["latency_ns"].slots) == 2  # and when it first entered, at once
    assert counted["cpu"]["involuntary_switches"] == 1
    assert counted["offcpu"]["block_count"] == 0
    assert account(kernel) == Account(on_cpu_ns=100, runnable_ns=70, throttled_ns=300)


def test_each_wait_for_itself(kernel, limited):
    """The throttled time of one wait is not in the next."""
    for began in (2000, 3000, 4000):
        kernel.at(began).throttle(limited)
        kernel.switch(limited, kernel.idle)
        kernel.at(began + 400).unthrottle(limited)
        kernel.at(began + 500).switch(kernel.idle, limited)
        kernel.at(began + 600).switch(limited, kernel.idle)
        kernel.at(began + 610).switch(kernel.idle, limited)

    assert account(kernel).throttled_ns == 3 * 400
    assert account(kernel).runnable_ns == 3 * (100 + 10)


def test_throttled_by_two_groups(kernel, limited):
    """It is throttled until the last group may run again; the time counts once."""
    kernel.at(1100).throttle(limited)
    kernel.throttle(limited)
    kernel.switch(limited, kernel.idle)
    kernel.at(1200).unthrottle(limited)
    kernel.at(1400).unthrottle(limited)
    kernel.at(1430).switch(kernel.idle, limited)

    assert account(kernel) == Account(on_cpu_ns=100, runnable_ns=30, throttled_ns=300)


def test_not_throttled(kernel, limited):
    """A wait in a group that has a quota, and has not used it up, is a wait in the run queue."""
    kernel.at(1100).switch(limited, kernel.idle)
    kernel.at(1170).switch(kernel.idle, limited)

    assert account(kernel) == Account(on_cpu_ns=100, runnable_ns=70)
    assert kernel.counted()["offcpu"]["throttled_wait_ns"] == 0


def test_what_another_group_is_throttled(kernel, thread):
    """A thread without a quota waits in the run queue, whatever is throttled elsewhere."""
    other = kernel.task(11)
    kernel.limit(other)
    kernel.at(1100).throttle(other)
    kernel.switch(thread, kernel.idle)
    kernel.at(1400).unthrottle(other)
    kernel.at(1450).switch(kernel.idle, thread)

    assert account(kernel) == Account(on_cpu_ns=100, runnable_ns=350)


def test_asleep_while_the_group_is_throttled(kernel, limited):
    """A thread that sleeps would not have run: its time is blocked until it is woken."""
    kernel.at(1100).switch(limited, kernel.idle, INTERRUPTIBLE)
    kernel.at(1200).throttle(limited, taken_away=False)
    kernel.at(1300).unthrottle(limited)
    kernel.at(1400).wake(limited)
    kernel.at(1410).switch(kernel.idle, limited)

    assert blocked(kernel.counted()["offcpu"]) == {FUTEX: 300}
    assert account(kernel) == Account(on_cpu_ns=100, runnable_ns=10, blocked_ns=300)


def test_woken_while_the_group_is_throttled(kernel, limited, name):
    """Before v6.18 it is throttled from then on; since, it waits for a CPU as others do, to return to user space."""
    kernel.at(1100).switch(limited, kernel.idle, INTERRUPTIBLE)
    kernel.at(1200).throttle(limited, taken_away=False)
    kernel.at(1300).wake(limited)
    if name == "6.18":
        kernel.at(1340).switch(kernel.idle, limited)
    else:
        kernel.at(1700).unthrottle(limited)
        kernel.at(1740).switch(kernel.idle, limited)

    counted = kernel.counted()
    throttled_ns = 0 if name == "6.18" else 400
    assert account(kernel) == Account(on_cpu_ns=100, runnable_ns=40, blocked_ns=200, throttled_ns=throttled_ns)
    assert counted["offcpu"]["woken_wait_ns"] == counted["cpu"]["wakeup_latency_ns"].sum == 40
    assert counted["offcpu"]["preempted_wait_ns"] == 0


@before_6_18
def test_throttled_after_it_left(kernel, limited):
    """Others of its group use up the quota while it waits for the CPU."""
    kernel.at(1100).switch(limited, kernel.idle)
    kernel.at(1150).throttle(limited)
    kernel.at(1450).unthrottle(limited)
    kernel.at(1460).switch(kernel.idle, limited)

    assert account(kernel) == Account(on_cpu_ns=100, runnable_ns=50 + 10, throttled_ns=300)


@before_6_18
def test_born_into_a_throttled_group(kernel):
    """It could not run before the quota was refilled."""
    kernel.at(1000).begin()
    child = kernel.task(10)
    kernel.limit(child)
    kernel.throttle(child)
    kernel.at(1500).born(child)
    kernel.at(1700).unthrottle(child)
    kernel.at(1730).switch(kernel.idle, child)

    assert account(kernel) == Account(runnable_ns=30, throttled_ns=200)
    assert kernel.counted()["cpu"]["wakeup_latency_ns"].sum == 30


@before_6_18
def test_real_time_threads(kernel, limited):
    """They have no CPU quota of this kind: what keeps them off a CPU is another of their kind."""
    kernel.tell("shim_set_prio", limited, 50)
    kernel.at(1100).throttle(limited)
    kernel.switch(limited, kernel.idle)
    kernel.at(1400).unthrottle(limited)
    kernel.at(1450).switch(kernel.idle, limited)

    assert account(kernel) == Account(on_cpu_ns=100, runnable_ns=350)


def test_preempted_before_it_is_taken_away(kernel, limited, name):
    """Since v6.18 a thread of a throttled group runs on in the kernel; who takes its CPU meanwhile makes it wait."""
    kernel.at(1100).throttle(limited, taken_away=False)
    kernel.switch(limited, kernel.idle, preempt=True)
    if name == "6.18":
        kernel.at(1150).switch(kernel.idle, limited)
        kernel.at(1160).tell("shim_set_throttled", limited, 1)
        kernel.switch(limited, kernel.idle)
    kernel.at(1400).unthrottle(limited)
    kernel.at(1450).switch(kernel.idle, limited)

    by_thread = Account(on_cpu_ns=110, runnable_ns=50 + 50, throttled_ns=240)
    assert account(kernel) == (by_thread if name == "6.18" else Account(100 - 100, 100, 50, 0, 300))


def test_moved_to_another_cgroup_while_throttled(kernel, limited):
    """Throttled until then; not until its old cgroup may run again, nor until it comes to a CPU."""
    kernel.at(1100)
    queue = kernel.throttle(limited)
    kernel.switch(limited, kernel.idle)
    kernel.at(1300).tell("shim_set_group_root", limited)
    kernel.fire("cgroup_attach_task_0", 0, 0, limited, WHOLE)
    kernel.at(1340).switch(kernel.idle, limited)
    kernel.at(1500).unthrottle(limited, queue)
    kernel.switch(limited, kernel.idle)
    kernel.at(1520).switch(kernel.idle, limited)

    assert account(kernel) == Account(on_cpu_ns=100 + 160, runnable_ns=40 + 20, throttled_ns=200)


def test_moved_with_its_process(kernel):
    """The tracepoint fires only for the leader; its threads are moved with it, throttled or not."""
    leader, threads = kernel.task(10), [kernel.task(number, tgid=10) for number in (11, 12)]
    kernel.at(1000).begin()
    queues = {}
    for cpu, task in enumerate(threads):
        kernel.limit(task)
        kernel.switch(kernel.idle, task, cpu=cpu)
    for cpu, task in enumerate(threads):
        kernel.at(1100 + cpu)
        queues[task] = kernel.throttle(task)
        kernel.switch(task, kernel.idle, cpu=cpu)
    kernel.at(1250).unthrottle(threads[1])
    for task in threads:
        kernel.at(1300).tell("shim_set_group_root", task)
    kernel.fire("cgroup_attach_task_0", 0, 0, leader, WHOLE)
    kernel.at(1400)
    for cpu, task in enumerate(threads):
        kernel.switch(kernel.idle, task, cpu=cpu)

    accounts = {task.thread.tid: task.account for task in kernel.sample().tasks}
    assert accounts[11] == Account(on_cpu_ns=100, runnable_ns=100, throttled_ns=200)
    assert accounts[12] == Account(on_cpu_ns=101, runnable_ns=150, throttled_ns=149)


def test_moved_before_it_waited(kernel, limited):
    """An old move says nothing of a wait that began later."""
    kernel.fire("cgroup_attach_task_0", 0, 0, limited, WHOLE)
    kernel.at(1100).throttle(limited)
    kernel.switch(limited, kernel.idle)
    kernel.at(1400).unthrottle(limited)
    kernel.at(1450).switch(kernel.idle, limited)

    assert account(kernel) == Account(on_cpu_ns=100, runnable_ns=50, throttled_ns=300)


def test_a_quota_that_comes_and_goes(kernel, thread):
    """Each wait is judged by the quotas that there are when it begins."""
    for quota in (True, False):
        if quota:
            kernel.limit(thread)
            kernel.at(1100).throttle(thread)
        else:
            kernel.tell("shim_set_group_root", thread)
            kernel.at(1500)
        kernel.switch(thread, kernel.idle)
        if quota:
            kernel.at(1400).unthrottle(thread)
        else:
            kernel.at(1700)
        kernel.switch(kernel.idle, thread)

    assert account(kernel) == Account(on_cpu_ns=200, runnable_ns=200, throttled_ns=300)


def test_throttled_when_the_run_begins(kernel):
    """How long it remained throttled is unknown: that part is neither throttled nor runnable, so unexplained."""
    early = kernel.task(10)
    kernel.limit(early)
    kernel.at(500).throttle(early)
    kernel.at(1000).begin()
    kernel.at(1300).unthrottle(early)
    kernel.at(1350).switch(kernel.idle, early)
    kernel.at(1400).switch(early, kernel.idle)

    assert account(kernel) == Account(on_cpu_ns=50)
    assert sum(kernel.counted()["runqlat"]["latency_ns"].slots) == 0


def test_throttled_when_the_run_ends(kernel, limited):
    """Cut there, as any other state."""
    kernel.at(1100).throttle(limited)
    kernel.switch(limited, kernel.idle)
    kernel.at(1700).end()

    assert kernel.counted(closed=True)["offcpu"]["throttled_wait_ns"] == 600
    assert kernel.sample().tasks[0].state == TaskState.THROTTLED


def test_kernel_threads(kernel):
    """For the whole machine, offcpu counts only the throttled time of user threads."""
    worker = kernel.task(10, kthread=True)
    kernel.limit(worker)
    kernel.at(1000).begin().switch(kernel.idle, worker)
    kernel.throttle(worker)
    kernel.switch(worker, kernel.idle)
    kernel.at(1100).unthrottle(worker)
    kernel.switch(kernel.idle, worker)

    assert kernel.counted()["offcpu"]["throttled_wait_ns"] == 0


def test_two_threads_with_one_place(kernel, limited):
    """A stopwatch's reading that another thread has overwritten is lost, and counted."""
    entries = kernel.get("cb_quota_waits_size") // 32
    other = kernel.task(limited.pid + entries)
    kernel.limit(other)
    kernel.switch(kernel.idle, other, cpu=1)
    kernel.at(1100)
    for cpu, task in enumerate((limited, other)):
        kernel.throttle(task)
        kernel.switch(task, kernel.idle, cpu=cpu)
    for task in (limited, other):
        kernel.at(kernel.now_ns + 100).unthrottle(task)
    for cpu, task in enumerate((limited, other)):
        kernel.at(1400).switch(kernel.idle, task, cpu=cpu)

    assert kernel.lost() == {"task_collisions": 1}


def test_no_cpu_quotas_in_this_kernel(compile_unit, tmp_path):
    """A kernel without CONFIG_CFS_BANDWIDTH throttles nothing."""
    text = fused(has_field=lambda field: field != "task_group.cfs_bandwidth").text
    kernel = UserSpace(ctypes.CDLL(str(shutil.copy(compile_unit(text, "no-quota"), tmp_path))))
    thread = kernel.task(10)
    kernel.at(1000).begin().switch(kernel.idle, thread)
    kernel.switch(thread, kernel.idle)
    kernel.at(1100).switch(kernel.idle, thread)

    assert account(kernel) == Account(runnable_ns=100)
