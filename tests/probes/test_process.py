"""One record per process (probes/lib/process.h): whose it is, what is added to it, and who goes without."""

import ctypes

import pytest
from user_space import AGENT, DEAD, EXECVE, FUTEX, INTERRUPTIBLE, READ, UNINTERRUPTIBLE

from chainbench_agent.loading.unit_sizes import PROCESSES
from chainbench_agent.probes import CATALOG

SETS = PROCESSES // 4
GRACE_NS = 1_000_000  # CB_PROCESS_GRACE_NS


def sharing(kernel, count, first=10):
    """Processes that lead to one set."""
    return [kernel.task(first + i * SETS, comm=f"p{i}") for i in range(count)]


def call(kernel, task, times=1):
    for _ in range(times):
        kernel.fire("sys_enter_0", 0, READ, current=task)


def calls(kernel):
    """Pid → system calls, of those that have a record."""
    return {pid: process.figures["syscalls"]["total"] for pid, process in kernel.processes().items()}


def total(kernel):
    return kernel.counted()["syscalls"]["total"]


def lives(kernel, task, ns):
    """It is born, does one call and ends; then its record may be another's."""
    begin = kernel.now_ns
    kernel.born(task)
    call(kernel, task)
    kernel.at(begin + ns).exit(task)
    kernel.at(begin + ns).switch(task, kernel.idle, DEAD)


@pytest.fixture
def running(kernel):
    return kernel.at(1000).begin()


# ---- figures


def test_time(running):
    """On a CPU, off it by any reason, and waiting for one: each interval in the process of its thread."""
    first, second = running.task(10, comm="a", syscall=FUTEX), running.task(11, tgid=10, comm="a", syscall=READ)
    other = running.task(20, comm="b")
    running.born(first)
    running.at(1_003).switch(running.idle, first)
    running.at(1_010).switch(first, running.idle, INTERRUPTIBLE)
    running.at(1_110).wake(first)
    running.at(1_130).switch(running.idle, first)
    running.at(1_131).switch(first, other, preempt=True)  # `other` has waited since the run began
    running.at(1_231).switch(other, second, UNINTERRUPTIBLE)
    running.limit(second)
    running.at(1_238).throttle(second)
    running.switch(second, running.idle, preempt=True)
    running.at(1_266).unthrottle(second)
    running.at(1_268).switch(running.idle, second)

    a, b = (running.processes()[pid].figures for pid in (10, 20))
    assert a["cpu"] == {"on_cpu_ns": 7 + 1 + 7, "context_switches": 3}
    assert a["offcpu"] == {"off_cpu_ns": 3 + 100 + 20 + 231 + 30}
    assert a["runqlat"] == {"wait_ns": 3 + 20 + 231 + 2}
    assert b["cpu"] == {"on_cpu_ns": 100, "context_switches": 1}
    assert b["offcpu"] == {"off_cpu_ns": 131}
    assert b["runqlat"] == {"wait_ns": 131}
    assert_whole(running)


def assert_whole(kernel, *, closed=False):
    """All processes have a record here, so each module's own counter is exactly the sum of theirs."""
    counted, processes = kernel.counted(closed=closed), kernel.processes(closed=closed).values()
    kept = {
        (module, metric) for process in processes for module in process.figures for metric in process.figures[module]
    }
    assert kept == {(module.name, metric.name) for module in CATALOG for metric in module.per_process}
    for module, metric in kept:
        assert sum(p.figures[module][metric] for p in processes) == counted[module][metric], (module, metric)


def test_open_time(running):
    """Intervals that are open when the run ends are cut there, for each process and for the whole."""
    running.born(running.task(10))
    on, off = running.task(20), running.task(30)
    running.at(1_100).switch(off, on, INTERRUPTIBLE)
    running.at(1_900).end()

    figures = {pid: p.figures for pid, p in running.processes(closed=True).items()}
    assert {pid: f["cpu"]["on_cpu_ns"] for pid, f in figures.items()} == {10: 0, 20: 800, 30: 100}
    assert {pid: f["offcpu"]["off_cpu_ns"] for pid, f in figures.items()} == {10: 900, 20: 100, 30: 800}
    assert_whole(running, closed=True)


def test_kernel_threads(running):
    """They run and wait as other threads do; their sleep is not counted."""
    worker = running.task(10, kthread=True)
    running.at(1_005).switch(running.idle, worker)
    running.at(1_025).switch(worker, running.idle, UNINTERRUPTIBLE)
    running.at(1_050).wake(worker)

    figures = running.processes()[10].figures
    assert (figures["cpu"]["on_cpu_ns"], figures["offcpu"]["off_cpu_ns"], figures["runqlat"]["wait_ns"]) == (20, 0, 5)
    assert_whole(running)


def test_calls_programs_and_children(running):
    """In the process of the thread that does it, on whatever CPU."""
    first, second = running.task(10), running.task(11, tgid=10)
    call(running, first, 3)
    call(running, second, 2)
    running.fire("sys_enter_0", 0, 1 << 40, cpu=3, current=second)  # of an unknown number
    for answer in (0, -2, -4095, -4096):
        running.fire("call_returns_0", 0, answer, current=second)
    running.fork(first, running.task(20))
    running.fork(second, running.task(30))
    running.fork(second, running.task(12, tgid=10))
    running.fire("sched_process_exec_0", first, 10, 0, current=first)
    for _ in range(3):
        running.enter(second, EXECVE)
        running.leave(second, -2)
    call(running, running.task(40))

    figures = running.processes()[10].figures
    assert figures["syscalls"] == {"total": 9, "failed": 5}
    assert figures["exec"] == {"exec_count": 1, "exec_failures": 3, "forks": 2, "threads_created": 1}
    assert_whole(running)


def test_the_agent_has_no_record(running):
    """Neither does the idle task."""
    for task in (running.task(AGENT), running.task(AGENT + 50, tgid=AGENT + 1)):
        running.born(task)
        running.switch(running.idle, task)
        call(running, task)
        running.exit(task)
        running.switch(task, running.idle, DEAD)

    assert running.processes() == {}


def test_a_process_outside_the_target_has_no_record(kernel):
    """Only processes of the target are reported."""
    ours, other = kernel.task(10), kernel.task(20)
    kernel.at(1000).tree(10).begin()
    for task in (ours, other):
        call(kernel, task)
        kernel.at(kernel.now_ns + 10).switch(task, kernel.idle, INTERRUPTIBLE)
        kernel.wake(task)

    assert calls(kernel) == {10: 1}
    assert_whole(kernel)


# ---- whose a record is


def test_a_process_is_called_as_its_leader(running):
    """A process has the name of its leader, also if another thread of it is seen first."""
    leader, thread = running.task(10, comm="server"), running.task(11, tgid=10, comm="worker-1")
    running.tell("shim_set_leader", thread, ctypes.c_void_p(leader.address))

    running.born(thread)

    assert [p.command for p in running.processes().values()] == ["server"]


@pytest.mark.parametrize("kind", ["machine", "tree"])
def test_an_exec_renames(kernel, kind):
    """From then on it is called as the program; what it did before is still its own."""
    task = kernel.task(10, comm="shell")
    kernel.at(1000)
    if kind == "tree":
        kernel.tree(10)
    kernel.begin()
    call(kernel, task, 5)
    assert kernel.processes()[10].command == "shell"

    kernel.tell("shim_set_comm", task, b"sort\0")
    kernel.fire("sched_process_exec_0", task, 10, 0, current=task)
    call(kernel, task, 2)

    assert kernel.processes()[10].command == "sort"
    assert calls(kernel) == {10: 7}


def test_who_was_at_work_before_the_run(running):
    """A system call is enough to be known, without any switch."""
    call(running, running.task(10, comm="spinner"), 3)

    assert calls(running) == {10: 3}
    assert running.processes()[10].command == "spinner"


def test_four_processes_in_one_set(running):
    """Each has a record of its own."""
    for times, task in enumerate(sharing(running, 4), start=1):
        call(running, task, times)

    assert calls(running) == {10: 1, 10 + SETS: 2, 10 + 2 * SETS: 3, 10 + 3 * SETS: 4}
    assert [p.command for p in running.processes().values()] == ["p0", "p1", "p2", "p3"]
    assert_whole(running)


def test_neighbours_are_in_different_sets(running):
    """Processes born one after the other do not crowd each other out."""
    for pid in range(10, 30):
        call(running, running.task(pid))

    assert calls(running) == dict.fromkeys(range(10, 30), 1)


def test_a_fifth_process_in_one_set(running):
    """It goes without a record, and the others keep theirs; what it does is in the sums."""
    *four, fifth = sharing(running, 5)
    for task in four:
        call(running, task)
    running.at(GRACE_NS * 100)

    running.born(fifth)
    running.at(GRACE_NS * 100 + 7).switch(running.idle, fifth)
    call(running, fifth, 11)

    assert calls(running) == {task.pid: 1 for task in four}
    assert total(running) == 4 + 11
    assert running.lost() == {}


def test_who_lived_shortest_gives_way(running):
    """The shortest-lived of the processes that ended; the longest-lived did most, and stay for the evidence."""
    short, shorter, long, alive, late = sharing(running, 5)
    running.born(alive)
    for task, ns in ((long, 9_000), (short, 200), (shorter, 100)):
        lives(running, task, ns)
    running.at(running.now_ns + GRACE_NS + 1)

    lives(running, late, 300)
    assert calls(running) == {short.pid: 1, long.pid: 1, alive.pid: 0, late.pid: 1}
    assert running.processes()[late.pid].command == "p4"
    assert total(running) == 4

    running.at(running.now_ns + GRACE_NS + 1).born(shorter)  # a new record, without what it did before
    assert calls(running) == {shorter.pid: 0, long.pid: 1, alive.pid: 0, late.pid: 1}


def test_who_has_just_ended_does_not_give_way_yet(running):
    """Another CPU may still be writing its last event; the new process gets a record at a later event."""
    *four, late = sharing(running, 5)
    for task in four:
        lives(running, task, 10)

    running.at(running.now_ns + GRACE_NS - 40).born(late)
    call(running, late)
    assert late.pid not in calls(running)

    running.at(running.now_ns + 100)
    call(running, late, 2)
    assert calls(running)[late.pid] == 2
    assert total(running) == 4 + 3


def test_a_number_is_used_again(running):
    """A new process with the number of one that ended starts from nothing, in its record."""
    task = running.task(10, comm="old")
    lives(running, task, 50)
    successor = running.task(10, comm="new")

    running.at(2_000).born(successor)
    call(running, successor, 3)

    assert calls(running) == {10: 3}
    assert running.processes()[10].command == "new"
    assert total(running) == 1 + 3


def test_a_number_is_used_again_unseen(running):
    """The new process has the record also if a system call is the first event of it."""
    call(running, running.task(10, comm="old"))
    running.at(1_500).exit(running.task(10))

    call(running, running.task(10, comm="new"), 3)

    assert calls(running) == {10: 3}
    assert running.processes()[10].command == "new"


def test_the_end_is_its_own(running):
    """After its last thread has begun to end, it still runs and waits; that does not make it a new process."""
    task = running.task(10)
    running.born(task)
    running.at(1_100).switch(running.idle, task)
    call(running, task)
    running.at(1_200).exit(task)
    leaving = running.task(11, tgid=10)  # a thread of it that was not seen before, ending as well
    running.tell("shim_set_live", leaving, 0)
    running.wake(leaving)
    running.at(1_230).switch(task, running.idle, DEAD)

    figures = running.processes()[10].figures
    assert (figures["syscalls"]["total"], figures["cpu"]["on_cpu_ns"]) == (1, 130)


def test_a_process_goes_on_while_a_thread_of_it_lives(running):
    """The leader may end first: its record does not give way."""
    *four, late = sharing(running, 5)
    for task in four:
        call(running, task)
    running.exit(four[0], left=1)
    running.at(GRACE_NS * 9).born(late)

    assert calls(running) == {task.pid: 1 for task in four}


def test_a_run_knows_its_own_processes_only(running):
    """Figures begin at nothing, whoever had the record in the run before."""
    for task in sharing(running, 4):
        call(running, task, 5)
    running.at(9_000).end()
    running.begin()
    assert running.processes() == {}

    (fifth,) = sharing(running, 1, first=10 + 4 * SETS)
    call(running, fifth, 2)
    for times, task in enumerate(sharing(running, 2), start=3):  # whose record is another's now, and whose is still its
        call(running, task, times)

    assert calls(running) == {fifth.pid: 2, 10: 3, 10 + SETS: 4}
    assert_whole(running)


def test_while_another_cpu_claims(running):
    """An event that finds the set claimed makes no record; a later event does: nothing is torn or lost."""
    task, far = running.task(10), running.task(11)
    claims = (ctypes.c_uint32 * SETS).in_dll(running.library, "cb_process_claims_cells")
    claims[10] = 1

    call(running, task, 2)
    call(running, far)
    assert calls(running) == {11: 1}
    assert list(claims) == [int(index == 10) for index in range(SETS)]

    claims[10] = 0
    call(running, task, 3)
    assert calls(running) == {10: 3, 11: 1}
    assert total(running) == 2 + 1 + 3
    assert not any(claims)
