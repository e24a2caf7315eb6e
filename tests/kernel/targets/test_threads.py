"""The threads of a target, in a /proc that the tests fill and in this machine's."""

import os
import subprocess
import time
from dataclasses import replace

import pytest

from chainbench_agent.evidence.sample import ProcThread, Sleeper, Thread
from chainbench_agent.kernel.targets import threads
from chainbench_agent.kernel.targets.threads import proc_threads, sleepers
from chainbench_agent.probes.wait_key import NO_CALL

BEGAN_NS = 5


@pytest.fixture
def x86(monkeypatch):
    """System calls have the numbers of x86-64."""
    monkeypatch.setattr(threads, "syscalls", lambda _machine: {0: "read", 202: "futex"})


def found_asleep(processes, seen=(), outside=None):
    return sleepers(proc_threads(processes), seen, BEGAN_NS, outside or {})


@pytest.mark.usefixtures("x86")
def test_threads_without_a_switch_are_sleepers(proc):
    """With the call and the function in which they sleep.  Other threads are known already."""
    proc.add(10, 1)
    proc.add(20, 1)
    proc.thread(10, 10, syscall="202 0x7f 0x80\n", wchan="futex_do_wait")
    proc.thread(10, 11, command="tmux: (x) R", syscall="0 0x3 0x7f\n", wchan="pipe_read")
    proc.thread(10, 12, syscall="0 0x3\n", wchan="pipe_read")
    proc.thread(20, 20, syscall="0 0x3\n", wchan="pipe_read")

    found = {s.thread.tid: (s.thread, s.syscall, s.function, s.in_futex) for s in found_asleep([10], {12})}

    assert found == {
        10: (Thread(10, 10, "worker", BEGAN_NS), 202, "futex_do_wait", True),
        11: (Thread(11, 10, "tmux: (x) R", BEGAN_NS), 0, "pipe_read", False),
    }


def test_threads_that_were_seen_outside_sleep_since_then(proc):
    """And not since the start of the run."""
    proc.add(10, 1)
    proc.thread(10, 10)
    proc.thread(10, 11)

    found = found_asleep([10], outside={11: 77, 99: 78})

    assert {sleeper.thread.tid: sleeper.thread.begin_ns for sleeper in found} == {10: BEGAN_NS, 11: 77}


UNKNOWN = Sleeper(Thread(10, 10, "worker", BEGAN_NS), NO_CALL, "", ProcThread(10, "worker", 0, "S", 0, 0, None))


@pytest.mark.usefixtures("x86")
@pytest.mark.parametrize(
    ("files", "changed"),
    [
        ({"syscall": "-1 0x7ffd 0x7f\n", "wchan": "do_nanosleep"}, {"function": "do_nanosleep"}),
        ({"syscall": "202 0x7f\n", "wchan": "0"}, {"syscall": 202, "in_futex": True}),
        ({"syscall": "9999 0x7f\n", "wchan": ""}, {}),
        ({"syscall": "", "wchan": ""}, {}),
        ({}, {}),
        ({"syscall": "0 0x0 0x0\n", "wchan": "rescuer_thread", "flags": "2129984"}, {"function": "rescuer_thread"}),
    ],
    ids=["page fault", "no function", "no such call", "hidden", "no such files", "kernel thread"],
)
def test_a_sleeper_without_call_and_function_is_still_one(proc, files, changed):
    proc.add(10, 1)
    proc.thread(10, 10, **files)

    (found,) = found_asleep([10])

    assert replace(found, proc=UNKNOWN.proc) == replace(UNKNOWN, **changed)


def test_threads_that_end_meanwhile_are_ignored(proc):
    proc.add(10, 1)
    proc.thread(10, 10)
    (proc.path / "10/task/10/stat").unlink()

    assert proc_threads([10, 11]) == {}


@pytest.mark.parametrize(
    ("files", "account"),
    [
        ({"schedstat": "8013046 2104502 9\n"}, (8013046, 2104502, 9)),
        ({"schedstat": ""}, (None, 0, 0)),
        ({"schedstat": "0 0 0\n"}, (None, 0, 0)),
        ({}, (None, 0, 0)),
    ],
    ids=["kept", "empty", "switched off", "no such file"],
)
def test_the_account_is_that_of_schedstat(proc, files, account):
    """Time on a CPU, in a run queue, and arrivals; without an account they are None and not 0."""
    proc.add(10, 1)
    proc.thread(10, 10, **files)

    found = proc_threads([10])[10]

    assert (found.on_cpu_ns, found.runnable_ns, found.arrivals) == account


@pytest.mark.parametrize(
    ("state", "dead", "asleep"), [("R", 0, 0), ("S", 0, 1), ("D", 0, 1), ("T", 0, 1), ("Z", 1, 0), ("X", 1, 0)]
)
def test_only_sleeping_and_stopped_threads_are_asleep(proc, state, dead, asleep):
    """A dead thread is not; a stopped one is."""
    proc.add(10, 1)
    proc.thread(10, 10, state=state)

    found = proc_threads([10])[10]

    assert (found.dead, found.asleep) == (bool(dead), bool(asleep))


def test_a_child_asleep_is_found_with_its_call_and_its_age():
    """Its age is exact to a clock tick."""
    before_ns = time.monotonic_ns()
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as child:
        child.stdin.write(b"x")
        child.stdout.read(1)
        after_ns = time.monotonic_ns()
        while (found := proc_threads([child.pid])[child.pid]).state != "S":
            time.sleep(0.01)
        (sleeper,) = sleepers({child.pid: found}, (), BEGAN_NS, {})
        ourselves = proc_threads([os.getpid()])[os.getpid()]
        child.stdin.close()

    assert sleeper.thread == Thread(child.pid, child.pid, "cat", BEGAN_NS)
    assert found.born_ns <= after_ns
    assert found.born_by_ns >= before_ns
    assert found.born_by_ns - found.born_ns == 10_000_000
    assert found.on_cpu_ns > 0
    assert found.arrivals > 0
    assert ourselves.born_by_ns <= before_ns
    assert ourselves.state == "R"
