"""The handlers of memory.c, where a live kernel does not show a branch at will."""

import ctypes
import shutil

import pytest
from user_space import AGENT, CPUS, INTERRUPTIBLE, UserSpace, fused

from chainbench_agent.catalog import Names
from chainbench_agent.loading.pmu_events import CPUS as EVENT_CPUS
from chainbench_agent.loading.process_records import processes
from chainbench_agent.probes import CATALOG
from chainbench_agent.probes.memory import COUNTERS, derive

HARD, SOFT, DISABLED = 0x10000, 0x100, 0x201  # hard interrupt; soft interrupt; bottom halves and preemption disabled
OBJECT = 0xFFFF888000000000


@pytest.fixture
def running(kernel):
    return kernel.at(1000).begin()


@pytest.fixture
def user(kernel):
    return kernel.task(10)


def memory(kernel):
    """All counts that are not zero."""
    counted = kernel.counted()["memory"]
    return {name: value for name, value in counted.items() if isinstance(value, int) and value}


def of_process(kernel, pid):
    records = processes(memoryview(kernel.raw("cb_processes")), CATALOG, kernel.run)
    (found,) = [record.figures["memory"] for record in records if record.pid == pid]
    return found


def test_faults(kernel, user):
    """Page faults count for the target, and for the process of the thread."""
    other, second = kernel.task(20), kernel.task(11, tgid=10)
    kernel.at(1000).tree(10).begin()
    kernel.born(user)  # a process has a record from when one of its threads was seen

    for task in (user, second, other, kernel.task(AGENT)):
        kernel.fire("minor_fault_0", current=task)
    kernel.fire("major_fault_0", current=second)
    kernel.fire("major_fault_0", current=other)

    assert memory(kernel) == {"page_faults_minor": 2, "page_faults_major": 1}
    assert of_process(kernel, 10) == {"page_faults_minor": 2, "page_faults_major": 1, "kmalloc_bytes": 0}


def test_what_is_no_memory(running, user):
    """Nothing was got; nothing there to free; no page."""
    for bytes_, got in ((100, 0), (100, OBJECT)):
        running.fire("kmalloc_0", 0, got, bytes_, 128, 0, current=user)
        running.fire("kmalloc_node_0", 0, got, bytes_, 128, 0, 0, current=user)
    for given in (0, 16, 17, OBJECT):  # NULL, ZERO_SIZE_PTR
        running.fire("kfree_0", 0, given, current=user)
    for page, order in ((0, 3), (OBJECT, 0), (OBJECT, 3)):
        running.fire("mm_page_alloc_0", page, order, current=user)

    assert memory(running) == {"kmalloc_count": 2, "kmalloc_bytes": 200} | {
        "kmalloc_squares": 20_000,
        "kfree_count": 2,
        "page_allocs": 9,
    }


def allocate(kernel, task, count):
    """One of each in a context with this preemption count."""
    kernel.tell("shim_set_preempt_count", task, count)
    kernel.fire("kmalloc_0", 0, OBJECT, 100, 128, 0, current=task)
    kernel.fire("kfree_0", 0, OBJECT, current=task)
    kernel.fire("mm_page_alloc_0", OBJECT, 0, current=task)


ONCE = {"kmalloc_count": 1, "kmalloc_bytes": 100, "kmalloc_squares": 10_000, "kfree_count": 1, "page_allocs": 1}


def test_interrupts_are_not_the_targets(kernel, user):
    """Allocations of an interrupt are not made by the thread that it interrupts."""
    kernel.at(1000).tree(10).begin()

    for count in (HARD, SOFT, HARD | SOFT, DISABLED):
        allocate(kernel, user, count)

    assert memory(kernel) == ONCE


def test_interrupts_are_the_machines(running, user):
    """Allocations in interrupts count for the machine, but for no process."""
    running.switch(running.idle, user)
    for count in (HARD, SOFT, DISABLED):
        allocate(running, user, count)

    assert memory(running) == {name: 3 * count for name, count in ONCE.items()}
    assert of_process(running, 10)["kmalloc_bytes"] == 100


def test_the_preemption_count_next_to_the_run_queue(compile_unit):
    """Where the thread does not hold it, the CPU does; where that is, is found once."""
    text = fused(has_field=lambda field: field != "thread_info.preempt_count", PREEMPT_COUNT=0).text
    kernel = UserSpace(ctypes.CDLL(str(compile_unit(text, "preempt"))))
    user = kernel.task(10)
    kernel.at(1000).tree(10).begin()

    for count in (0, SOFT, 0):
        allocate(kernel, user, count)

    assert memory(kernel) == {name: 2 * count for name, count in ONCE.items()}


def test_a_sample_stands_for_all(kernel, user):
    """One in three is looked at, and counts for three; faults and pages are always counted."""
    kernel.sample_interval = 3
    kernel.at(1000).begin()
    for _ in range(9):
        allocate(kernel, user, 0)

    assert memory(kernel)["page_allocs"] == 9
    assert memory(kernel)["kmalloc_count"] % 3 == 0
    assert memory(kernel)["kmalloc_bytes"] == 100 * memory(kernel)["kmalloc_count"]


def test_victims(kernel, user):
    """Victims are found by their thread, or by its number where the tracepoint has only that."""
    other = kernel.task(20)
    kernel.at(1000).tree(10).begin()
    for task in (user, other):
        kernel.fire("mark_victim_0", task, 0, current=other)
        kernel.fire("mark_victim_1", task.pid, current=other)
    assert memory(kernel) == {"oom_kills": 2}

    kernel.end().attach(kernel.target.__class__()).begin()
    kernel.fire("mark_victim_1", 20, current=other)
    assert memory(kernel) == {"oom_kills": 1}


@pytest.fixture(scope="module")
def counting_unit(compile_unit):
    return compile_unit(fused(COUNTERS=(1 << len(COUNTERS)) - 1).text, "counting")


@pytest.fixture
def counting(counting_unit, tmp_path):
    """A kernel with all counters of the CPU."""
    return UserSpace(ctypes.CDLL(str(shutil.copy(counting_unit, tmp_path))))


def stand(kernel, cpu, value, enabled, running):
    """The counters of a CPU: the first stands at `value`, the second at twice that, and so on."""
    cells = ((ctypes.c_uint64 * 3) * (len(COUNTERS) * EVENT_CPUS)).in_dll(kernel.library, "cb_counter_events_cells")
    for index in range(len(COUNTERS)):
        cells[index * EVENT_CPUS + cpu][:] = (value * (index + 1), enabled, running)


def counters(kernel):
    return kernel.counted()["memory"]["counters"]


def test_counters_between_entering_and_leaving(counting):
    """Only the difference while the thread was on the CPU counts, not what others did before, after or elsewhere."""
    user, other = counting.task(10), counting.task(20)
    counting.at(1000).tree(10).begin()
    stand(counting, 1, 5, 100, 100)
    counting.at(1100).switch(other, user, cpu=1)
    stand(counting, 1, 12, 300, 200)
    stand(counting, 0, 1000, 9000, 9000)
    counting.at(1300).switch(user, other, INTERRUPTIBLE, cpu=1)
    stand(counting, 1, 99, 999, 999)
    counting.at(1500).switch(other, counting.idle, cpu=1)

    assert counters(counting) == (*(7 * i for i in range(1, 7)), *(200,) * 6, *(100,) * 6)


def test_counters_from_the_beginning_of_the_run(counting):
    """They stood at zero for a thread that was at work then.  One that moves in while it works is not counted yet."""
    user = counting.task(10)
    counting.at(1000).tree(10).begin()
    stand(counting, 2, 7, 50, 50)
    counting.at(1100).switch(user, counting.idle, INTERRUPTIBLE, cpu=2)
    assert counters(counting)[0] == 7

    joined = counting.task(30)
    counting.end().at(2000).cgroup(5, 1).begin()
    counting.at(2100).switch(counting.idle, joined, cpu=0)
    stand(counting, 0, 11, 50, 50)
    counting.move(joined, 5)
    counting.at(2200).switch(joined, counting.idle, INTERRUPTIBLE, cpu=0)
    assert counters(counting) == (0,) * 18


def test_counters_of_the_machine_are_not_read_at_switches(counting):
    """The agent reads them itself, once."""
    user = counting.task(10)
    counting.at(1000).begin()
    stand(counting, 0, 7, 50, 50)
    counting.at(1100).switch(user, counting.idle, INTERRUPTIBLE)

    assert counters(counting) == (0,) * 18


def test_scaling():
    """Counts are scaled by the share of time that the counter was on the PMU; without any, there is no value."""
    values_, enabled, running = (100, 10, 30, 5, 0, 8), (8, 8, 8, 8, 8, 0), (8, 4, 6, 0, 8, 0)

    found = derive({"counters": values_ + enabled + running}, Names({}, {}, {}, {}))

    assert found == {
        "cache_references": 100,
        "cache_misses": 20,
        "cache_hits": 80,
        "l1d_misses": 40,
        "dtlb_misses": 0,
        "itlb_misses": 8,
        "multiplexed": {"cache_misses": 0.5, "l1d_misses": 0.75, "l2_misses": 0.0},
    }


def test_the_number_of_cpus():
    """The same in C and in Python, and enough for the shim's."""
    assert f"#define MEMORY_CPUS {EVENT_CPUS} " in fused().text
    assert CPUS <= EVENT_CPUS
