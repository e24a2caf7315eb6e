"""One record per thread (probes/lib/task.h): whose it is, and which run's."""

import ctypes

from user_space import AGENT, DEAD, FUTEX, INTERRUPTIBLE, READ, UNINTERRUPTIBLE, UserSpace, blocked, fused

from chainbench_agent.loading.unit_sizes import TASK_RECORDS
from chainbench_agent.probes.wait_key import UNINTERRUPTIBLE as NO_SIGNAL


def test_the_end_of_a_thread(kernel, thread):
    """Its last stretch counts, it blocks in nothing, and it is not open at the end of the run."""
    kernel.at(1100).switch(thread, kernel.idle, DEAD)
    kernel.at(2000).end()

    counted = kernel.counted(closed=True)
    assert (counted["cpu"]["on_cpu_ns"], counted["cpu"]["voluntary_switches"]) == (100, 1)
    assert (blocked(counted["offcpu"]), counted["offcpu"]["block_count"]) == ({}, 0)
    assert kernel.sample().tasks == ()


def test_a_number_is_used_again(kernel, thread):
    """A new thread with the number of a dead one starts from nothing."""
    kernel.at(1100).switch(thread, kernel.idle, DEAD)
    successor = kernel.task(thread.pid, syscall=READ)

    kernel.at(1500).born(successor)
    kernel.at(1510).switch(kernel.idle, successor)
    kernel.at(1530).switch(successor, kernel.idle, INTERRUPTIBLE)

    counted = kernel.counted()
    assert counted["cpu"]["on_cpu_ns"] == 100 + 20
    assert counted["offcpu"]["woken_wait_ns"] == 10
    assert kernel.lost() == {}


def sharing(kernel, count):
    """Threads whose numbers lead to one record."""
    return [kernel.task(10 + i * TASK_RECORDS, comm=f"t{i}", syscall=20 + i) for i in range(count)]


def work(kernel, tasks):
    """Each runs, sleeps and waits, each for another time; the answer is (on_cpu, blocked, runnable) of each."""
    expected = []
    for i, task in enumerate(tasks, start=1):
        since = kernel.now_ns
        kernel.born(task)
        kernel.at(since + i).switch(kernel.idle, task)
        kernel.at(since + 11 * i).switch(task, kernel.idle, INTERRUPTIBLE)
        expected.append((task.pid, 10 * i, 100 * i, i))
    for task, (_, _, ns, _) in zip(tasks, expected, strict=True):
        since = {t.thread.tid: t.since_ns for t in kernel.sample().tasks}.get(task.pid, 0)
        kernel.at(max(kernel.now_ns, since + ns)).wake(task)
    return expected


def test_four_threads_on_one_record(kernel):
    """Each has an account of its own, at every event."""
    tasks = sharing(kernel, 4)
    kernel.at(1000).begin()
    expected = work(kernel, tasks)

    found = [
        (task.thread.tid, task.account.on_cpu_ns, task.account.runnable_ns, task.thread.command)
        for task in kernel.sample().tasks
    ]
    assert sorted(found) == [(pid, on, wait, f"t{i}") for i, (pid, on, _, wait) in enumerate(expected)]
    counted = kernel.counted()
    assert counted["cpu"]["on_cpu_ns"] == 10 + 20 + 30 + 40
    assert counted["offcpu"]["woken_wait_ns"] == 1 + 2 + 3 + 4
    assert set(blocked(counted["offcpu"])) == {20, 21, 22, 23}
    assert kernel.lost() == {}


def test_a_fifth_thread_on_one_record(kernel):
    """It is not measured, and each time that is counted; the others are measured all the same."""
    *tasks, fifth = sharing(kernel, 5)
    kernel.at(1000).begin()
    work(kernel, tasks)
    before = kernel.counted()

    kernel.born(fifth)
    kernel.at(kernel.now_ns + 5).switch(kernel.idle, fifth)
    kernel.at(kernel.now_ns + 100).switch(fifth, kernel.idle, INTERRUPTIBLE)
    kernel.at(kernel.now_ns + 100).wake(fifth)

    assert kernel.counted() == before
    assert kernel.lost() == {"task_collisions": 4}
    kernel.switch(kernel.idle, tasks[3])
    kernel.at(kernel.now_ns + 7).switch(tasks[3], fifth, DEAD)
    kernel.at(kernel.now_ns + 9).switch(fifth, kernel.idle, INTERRUPTIBLE)
    assert kernel.counted()["cpu"]["on_cpu_ns"] == before["cpu"]["on_cpu_ns"] + 7 + 9
    assert kernel.lost() == {"task_collisions": 4}


def test_a_thread_keeps_its_record(kernel):
    """Also when a nearer record becomes free: the thread does not start again there."""
    first, second = sharing(kernel, 2)
    kernel.at(1000).begin().switch(kernel.idle, first)
    kernel.at(1100).switch(first, second, DEAD)
    kernel.at(1150).switch(second, kernel.idle, INTERRUPTIBLE)
    kernel.at(1160).wake(second)

    (task,) = kernel.sample().tasks
    assert (task.thread.tid, task.account.on_cpu_ns, task.account.blocked_ns) == (second.pid, 50, 10)


def test_a_record_is_free_after_a_death(kernel, thread):
    """Another thread takes the dead one's record without a collision."""
    double = kernel.task(thread.pid + TASK_RECORDS)
    kernel.at(1100).switch(thread, kernel.idle, DEAD)

    kernel.at(1200).born(double)
    kernel.at(1210).switch(kernel.idle, double)
    kernel.at(1250).switch(double, kernel.idle, INTERRUPTIBLE)

    assert kernel.counted()["cpu"]["on_cpu_ns"] == 100 + 40
    assert kernel.lost() == {}


def test_the_agent_is_not_counted(kernel):
    """Neither its threads nor those of its parent, in any state, at any edge."""
    threads = [kernel.task(AGENT + 50, tgid=AGENT), kernel.task(AGENT + 51, tgid=AGENT + 1)]
    kernel.at(1000).begin()
    for task in threads:
        kernel.at(kernel.now_ns + 10).switch(kernel.idle, task)
        kernel.at(kernel.now_ns + 10).switch(task, kernel.idle, INTERRUPTIBLE)
        kernel.at(kernel.now_ns + 10).wake(task)
        kernel.fire("sched_migrate_task_0", task, 1)

    counted = kernel.end().counted(closed=True)
    assert {name: value for name, value in counted["cpu"].items() if value and isinstance(value, int)} == {}
    assert sum(counted["runqlat"]["latency_ns"].slots) == 0
    assert (blocked(counted["offcpu"]), counted["offcpu"]["block_count"]) == ({}, 0)
    assert kernel.sample().tasks == ()


def test_kernel_threads_are_not_blocked(kernel):
    """They run and wait for CPUs as other threads do, but their sleep is not blocked time."""
    worker = kernel.task(10, kthread=True)
    kernel.at(1000).begin()

    kernel.at(1005).switch(kernel.idle, worker)
    kernel.at(1025).switch(worker, kernel.idle, UNINTERRUPTIBLE)
    kernel.at(1050).wake(worker)

    counted = kernel.end().counted(closed=True)
    assert counted["cpu"]["on_cpu_ns"] == 20
    assert counted["runqlat"]["latency_ns"].sum == 5
    assert (blocked(counted["offcpu"]), counted["offcpu"]["block_count"]) == ({}, 0)
    assert counted["offcpu"]["preempted_wait_ns"] == 0


def test_the_idle_task_is_no_task(kernel):
    """PID 0 runs on every CPU at once: it has no record, no time and no switches."""
    kernel.at(1000).begin()
    for cpu in (0, 1, 0):
        kernel.at(kernel.now_ns + 10).switch(kernel.idle, kernel.idle, cpu=cpu)

    counted = kernel.counted(closed=True)
    assert (counted["cpu"]["on_cpu_ns"], counted["cpu"]["context_switches"]) == (0, 0)
    assert kernel.lost() == {}


def test_between_runs_nothing_counts(kernel, thread):
    """Programs may still be attached; the switch is what counts."""
    kernel.at(1100).end()
    before = kernel.sample().modules

    kernel.at(1200).switch(thread, kernel.idle, INTERRUPTIBLE)
    kernel.wake(thread)
    kernel.fire("sys_enter_0", 0, READ)

    assert kernel.sample().modules == before


def test_a_run_does_not_continue_another(kernel, thread):
    """An interval that a former run left open is cut at the beginning of this one."""
    kernel.at(1100).switch(thread, kernel.idle, INTERRUPTIBLE)
    kernel.at(1200).end()
    kernel.at(5000).begin()

    kernel.at(5030).wake(thread)
    kernel.at(5035).switch(kernel.idle, thread)

    counted = kernel.counted()
    assert blocked(counted["offcpu"]) == {FUTEX: 30}
    assert counted["offcpu"]["woken_wait_ns"] == 5
    assert counted["runqlat"]["latency_ns"].max == 5
    assert kernel.lost() == {}


def test_the_state_of_older_kernels(compile_unit):
    """Before 5.14 the member was called `state`; before 5.18 the tracepoint did not pass it."""
    built = compile_unit(fused(has_field=lambda _field: False).text, "older")
    kernel = UserSpace(ctypes.CDLL(str(built)))
    task = kernel.task(10, syscall=READ, state=UNINTERRUPTIBLE)
    kernel.at(1000).begin().switch(kernel.idle, task)

    kernel.fire("sched_switch_1", 0, task, kernel.idle, current=task)
    kernel.at(1030).wake(task)

    assert blocked(kernel.counted()["offcpu"]) == {READ | NO_SIGNAL: 30}


def test_a_record_that_becomes_free(kernel, thread):
    """A thread that was born in the run, into a collision, has not waited since before it was born."""
    *_, double = others = [kernel.task(thread.pid + i * TASK_RECORDS) for i in range(1, 5)]
    for other in others[:-1]:
        kernel.born(other)
    kernel.at(5000).born(double)  # lost: the records are the others'
    assert kernel.lost() == {"task_collisions": 1}

    kernel.at(6000).switch(thread, double, DEAD)
    kernel.at(6100).switch(double, kernel.idle, INTERRUPTIBLE)

    assert kernel.counted()["runqlat"]["latency_ns"].sum <= 6000 - 5000
    assert kernel.counted()["cpu"]["on_cpu_ns"] == 5000 + 100
