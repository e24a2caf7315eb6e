"""The handlers of cpu.c, exec.c and syscalls.c; those of intervals: test_sched.py and test_block.py."""

import ctypes
from struct import unpack

import pytest
from user_space import AGENT, EXECVE, EXECVEAT, FUTEX, INTERRUPTIBLE, NO_SYSCALL, READ, UserSpace, fused

from chainbench_agent.catalog import Names
from chainbench_agent.kernel.reading.index_names import UNKNOWN_STATE
from chainbench_agent.probes.cpu import derive
from chainbench_agent.probes.hooks import VECTORS

NOT_IDLE = 0xFFFFFFFF


def by_index(table):
    """Index → count, without the zeros."""
    return {index: count for index, count in enumerate(table) if count}


@pytest.fixture
def running(kernel):
    return kernel.at(1000).begin()


@pytest.fixture
def user(kernel):
    return kernel.task(10, comm="worker")


@pytest.fixture
def agent(kernel):
    return kernel.task(AGENT + 50, tgid=AGENT, comm="agent")


def test_migrations(running, user, agent):
    """Migrations of any thread are counted, but not of the agent's."""
    for task in (user, user, agent):
        running.fire("sched_migrate_task_0", task, 1)

    assert running.counted()["cpu"]["cpu_migrations"] == 2


def test_interrupts(running):
    """Each by its device or vector, and all together; a number beyond the table is the last."""
    for irq in (24, 24, 1023, 5000):
        running.fire("irq_handler_entry_0", irq)
    for times, vector in enumerate(VECTORS, start=1):
        for _ in range(times):
            running.fire(f"{vector}_entry_0", 236)

    cpu = running.counted()["cpu"]
    assert by_index(cpu["device_interrupts"]) == {24: 2, 1023: 2}
    assert cpu["vector_interrupts"] == (1, 2, 3, 4, 5)
    assert cpu["interrupts"] == 4 + 15


def test_softirqs_and_frequencies(running):
    for vector in (1, 1, 9):
        running.fire("softirq_entry_0", vector)
    running.fire("cpu_frequency_0", 2_400_000, 3)

    cpu = running.counted()["cpu"]
    assert by_index(cpu["softirqs"]) == {1: 2, 9: 1}
    assert cpu["frequency_changes"] == 1


def test_idle_time(running):
    """Counted by state; a CPU idle since before the run is in an unknown state from the run's beginning."""
    running.at(1100).fire("cpu_idle_0", NOT_IDLE, cpu=0)
    running.at(1200).fire("cpu_idle_0", 2, cpu=0)
    running.at(1250).fire("cpu_idle_0", NOT_IDLE, cpu=0)
    running.at(1400).fire("cpu_idle_0", 1, cpu=1)
    running.at(1900).end()

    assert by_index(running.counted()["cpu"]["idle_ns"]) == {UNKNOWN_STATE: 100, 2: 50}
    assert by_index(running.counted(closed=True)["cpu"]["idle_ns"]) == {UNKNOWN_STATE: 100, 2: 50, 1: 500}


def test_idle_spans_belong_to_one_run(running):
    """An idle span that lasts from one run into the next is cut at both edges."""
    running.at(1400).fire("cpu_idle_0", 2)
    running.at(1500).end()
    running.at(9000).begin()
    running.at(9100).fire("cpu_idle_0", NOT_IDLE)

    assert by_index(running.counted()["cpu"]["idle_ns"]) == {UNKNOWN_STATE: 100}


def test_throttled_groups(running, user):
    """A switch reads the counters of each cgroup with a quota above the thread that leaves the CPU."""
    running.switch(running.task(11), running.idle)
    running.limit(user, 77, times=3, ns=5_000_000)
    running.tell("shim_set_group_below", user)
    running.limit(user, 78, times=1, ns=1_000_000)
    running.switch(running.idle, user)
    running.switch(user, running.idle, INTERRUPTIBLE)

    groups = running.counted()["cpu"]["throttled_groups"]
    assert {int.from_bytes(key, "little") for key in groups} == {77, 78}
    found = derive({"throttled_groups": groups}, Names({}, {}, {77: (1, 2_000_000), 78: (0, 0)}, {}))
    assert found == {"throttle_events": 2 + 1, "throttled_ms": 3.0 + 1.0}


def test_executed_programs(running, user, agent):
    """Counted by the name that the program has after exec; those of the agent's children are not counted."""
    for task in (user, user, agent):
        running.fire("sched_process_exec_0", task, task.pid, 0, current=task)

    exec_ = running.counted()["exec"]
    assert exec_["exec_count"] == 2
    assert exec_["commands"] == {b"worker".ljust(16, b"\0"): (2).to_bytes(8, "little")}


def test_programs_that_could_not_be_executed(running, user, agent):
    """Calls of execve and execveat that answer an error; not those that are made again."""
    for number, answer in ((EXECVE, -2), (EXECVE, -13), (EXECVEAT, -38), (EXECVE, 0), (EXECVE, -513), (READ, -2)):
        running.enter(user, number)
        running.leave(user, answer)
    running.enter(agent, EXECVE)
    running.leave(agent, -2)

    assert running.counted()["exec"]["exec_failures"] == 3


def test_new_processes_and_threads(running, user, agent):
    """A thread is a child in the group of another."""
    process, thread = running.task(20), running.task(21, tgid=20)
    for parent, child in ((user, process), (user, thread), (user, thread), (agent, process)):
        running.fire("sched_process_fork_0", parent, child, current=parent)

    exec_ = running.counted()["exec"]
    assert (exec_["forks"], exec_["threads_created"]) == (1, 2)


def test_system_calls(running, user, agent):
    """Counted by number; numbers beyond the table and negative ones are unknown; the agent's do not count."""
    for number in (READ, FUTEX, FUTEX, 511, 512, 0x40000000 | READ, (1 << 64) - 1):
        running.fire("sys_enter_0", 0, number, current=user)
    running.fire("sys_enter_0", 0, READ, current=agent)

    syscalls = running.counted()["syscalls"]
    assert by_index(syscalls["calls"]) == {READ: 1, FUTEX: 2, 511: 1}
    assert syscalls["unknown_calls"] == 3
    assert by_index(syscalls["calls_32bit"]) == {}


def failures(kernel):
    """(call, error) → count."""
    found = kernel.counted()["syscalls"]["failures"]
    return {unpack("=IHH", key)[:2]: int.from_bytes(value, "little") for key, value in found.items()}


def test_system_calls_that_fail(running, user, agent):
    """Counted by call and error, from -4095 to -1; numbers beyond the table are unknown; the agent's do not count."""
    for number, answer in ((READ, -4), (READ, -4), (READ, -4095), (FUTEX, -1), (512, -38), (1 << 32, -38)):
        running.enter(user, number)
        running.leave(user, answer)
    for answer in (0, 1, 1 << 40, -4096, -(1 << 63)):
        running.leave(user, answer)
    running.leave(agent, -4)

    assert failures(running) == {(READ, 4): 2, (READ, 4095): 1, (FUTEX, 1): 1, (0xFFFFFFFF, 38): 2}
    assert running.counted()["syscalls"]["failed"] == 6


def test_interrupted_calls_have_not_failed(running, user):
    """The kernel's restart codes; other codes of its own are errors that slip out."""
    running.enter(user, READ)
    for answer in range(-530, -510):
        running.leave(user, answer)

    restarts = {512, 513, 514, 516}
    assert failures(running).keys() == {(READ, error) for error in range(511, 531) if error not in restarts}
    assert running.counted()["syscalls"]["interrupted"] == len(restarts)


def test_no_call_returns_from_a_handler(running, user):
    """Rt_sigreturn gives back the registers that the signal interrupted, and no number: these may hold anything."""
    running.tell("shim_set_syscall", user, ctypes.c_uint64(NO_SYSCALL))
    for answer in (-2, -512):
        running.leave(user, answer)

    assert (failures(running), running.counted()["syscalls"]["interrupted"]) == ({}, 0)


def test_errors_are_counted_one_by_one(running, user):
    """All errors are counted, also where calls are sampled."""
    running.end()
    running.sample_interval = 10_000
    running.begin()
    for _ in range(101):
        running.enter(user, READ)
        running.leave(user, -9)

    assert failures(running) == {(READ, 9): 101}


def test_a_call_and_error_too_many(running, user):
    """It is counted in the sum, and as lost."""
    for number in range(512):
        running.enter(user, number)
        for error in (1, 2, 3):
            running.leave(user, -error)

    assert len(failures(running)) == 1024
    assert running.counted()["syscalls"]["failed"] == 3 * 512
    assert running.lost() == {"keys_full": 3 * 512 - 1024}


def test_cpus_are_summed(running, user):
    """A counter is what all CPUs counted."""
    for cpu in range(4):
        running.fire("sys_enter_0", 0, READ, cpu=cpu, current=user)

    assert running.counted()["syscalls"]["calls"][READ] == 4


def test_32bit_calls(compile_unit):
    """On x86-64, a thread in a 32-bit call says so, and the number is one of i386's."""
    text = "#define CONFIG_X86_64 1\n#define CONFIG_IA32_EMULATION 1\n" + fused().text
    kernel = UserSpace(ctypes.CDLL(str(compile_unit(text, "ia32"))))
    task = kernel.task(10)
    kernel.at(1000).begin()

    kernel.fire("sys_enter_0", 0, 3, current=task)
    kernel.tell("shim_set_compat", task, 0x2)
    kernel.fire("sys_enter_0", 0, 3, current=task)

    syscalls = kernel.counted()["syscalls"]
    assert by_index(syscalls["calls"]) == by_index(syscalls["calls_32bit"]) == {3: 1}
