"""The handlers of cpu.c, exec.c and syscalls.c; those of intervals: test_sched.py and test_block.py."""

import ctypes

import pytest
from user_space import AGENT, FUTEX, INTERRUPTIBLE, READ, UserSpace, fused

from chainbench_agent.kernel.names import UNKNOWN_STATE
from chainbench_agent.probes.cpu import VECTORS, derive
from chainbench_agent.spec import Names

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
    """Of any thread but the agent's."""
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
    """By state and CPU; idle since before the run is an unknown state, from the beginning of the run."""
    running.at(1100).fire("cpu_idle_0", NOT_IDLE, cpu=0)
    running.at(1200).fire("cpu_idle_0", 2, cpu=0)
    running.at(1250).fire("cpu_idle_0", NOT_IDLE, cpu=0)
    running.at(1400).fire("cpu_idle_0", 1, cpu=1)
    running.at(1900).end()

    assert by_index(running.counted()["cpu"]["idle_ns"]) == {UNKNOWN_STATE: 100, 2: 50}
    assert by_index(running.counted(closed=True)["cpu"]["idle_ns"]) == {UNKNOWN_STATE: 100, 2: 50, 1: 500}


def test_idle_spans_belong_to_one_run(running):
    """What is idle from one run into the next is cut at both edges."""
    running.at(1400).fire("cpu_idle_0", 2)
    running.at(1500).end()
    running.at(9000).begin()
    running.at(9100).fire("cpu_idle_0", NOT_IDLE)

    assert by_index(running.counted()["cpu"]["idle_ns"]) == {UNKNOWN_STATE: 100}


def test_throttled_groups(running, user):
    """What a limited group stands at when its thread leaves; groups without a quota are not looked at."""
    running.switch(running.task(11), running.idle)
    running.tell("shim_set_quota", user, ctypes.c_uint64(77), 3, ctypes.c_uint64(5_000_000))
    running.switch(running.idle, user)
    running.switch(user, running.idle, INTERRUPTIBLE)

    groups = running.counted()["cpu"]["throttled_groups"]
    assert {int.from_bytes(key, "little") for key in groups} == {77}
    found = derive({"throttled_groups": groups}, Names({}, {}, {77: (1, 2_000_000)}, {}))
    assert found == {"throttle_events": 2, "throttled_ms": 3.0}


def test_executed_programs(running, user, agent):
    """By the name that the program has then; the agent's own children's are not its own."""
    for task in (user, user, agent):
        running.fire("sched_process_exec_0", task, task.pid, 0, current=task)

    exec_ = running.counted()["exec"]
    assert exec_["exec_count"] == 2
    assert exec_["commands"] == {b"worker".ljust(16, b"\0"): (2).to_bytes(8, "little")}


def test_new_processes_and_threads(running, user, agent):
    """A thread is a child in the group of another."""
    process, thread = running.task(20), running.task(21, tgid=20)
    for parent, child in ((user, process), (user, thread), (user, thread), (agent, process)):
        running.fire("sched_process_fork_0", parent, child, current=parent)

    exec_ = running.counted()["exec"]
    assert (exec_["forks"], exec_["threads_created"]) == (1, 2)


def test_system_calls(running, user, agent):
    """By number; a number beyond the table is unknown, also a negative one; the agent's are left out."""
    for number in (READ, FUTEX, FUTEX, 511, 512, 0x40000000 | READ, (1 << 64) - 1):
        running.fire("sys_enter_0", 0, number, current=user)
    running.fire("sys_enter_0", 0, READ, current=agent)

    syscalls = running.counted()["syscalls"]
    assert by_index(syscalls["calls"]) == {READ: 1, FUTEX: 2, 511: 1}
    assert syscalls["unknown_calls"] == 3
    assert by_index(syscalls["calls_32bit"]) == {}


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
