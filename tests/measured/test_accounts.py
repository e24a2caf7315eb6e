"""The time of threads that no hook saw, of threads that hardly ran, and of threads that ended, as the ledger has it."""

import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from asleep import until_asleep
from emulation import EMULATED
from packages import require

from chainbench_agent.errors import InputError
from chainbench_agent.evidence import sleepers
from chainbench_agent.evidence.model import Target
from chainbench_agent.evidence.sample import Account
from chainbench_agent.kernel.targets.cgroups import cgroup2_mount
from chainbench_agent.model.run_request import RunRequest

pytestmark = pytest.mark.bpf

HERE = Path(__file__).parent
LINES = ("on_cpu_ms", "runnable_ms", "blocked_ms", "unexplained_ms")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """`program("pool")` → pool.c of this directory, compiled."""
    compiler = require("cc")
    directory = tmp_path_factory.mktemp("programs")

    def built(name):
        if not (directory / name).exists():
            subprocess.run([compiler, "-O1", "-pthread", HERE / f"{name}.c", "-o", directory / name], check=True)
        return str(directory / name)

    return built


@contextmanager
def running(*command):
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def crowd(collector, program):
    """`crowd()` → the collector after a run of 100 ms of 60 threads that share a CPU."""

    def measured():
        with running("taskset", "-c", "0", "nice", program("pool"), "60") as process:
            time.sleep(0.3)
            collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
            time.sleep(0.1)
            collector.stop()
        return collector

    return measured


def run_ms(evidence):
    """The main thread was there from the beginning to the end."""
    return max(line["wall_ms"] for line in evidence["ledger"]["threads"])


def test_more_threads_than_cpus(crowd, run):
    """Threads without a turn were runnable.  All together ran no longer than one CPU, and no time is unexplained."""
    evidence = crowd().evidence(run).as_json()
    ledger, length = evidence["ledger"], run_ms(evidence)

    assert evidence["target"]["threads_seen"] == 61
    assert ledger["wall_ms"] == pytest.approx(61 * length)
    assert ledger["on_cpu_ms"] <= 1.01 * length
    assert ledger["on_cpu_ms"] == pytest.approx(evidence["cpu"]["on_cpu_ms"], abs=0.001)
    assert ledger["runnable_ms"] == pytest.approx(evidence["offcpu"]["runnable_ms"], abs=0.001)
    # a thread that had a turn in the moment before the run or after it may have been anything in between
    assert ledger["on_cpu_ms"] + ledger["runnable_ms"] >= 0.8 * 60 * length


def test_starved_by_a_real_time_thread(collector, run):
    """It is runnable while the other one has its CPU; what it gets is what the kernel says."""
    spin = (sys.executable, "-c", "print(flush=True)\nwhile True: pass")
    with running("taskset", "-c", "1", *spin) as process, running("chrt", "-f", "10", "taskset", "-c", "1", *spin):
        before = schedstat(process.pid)
        collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
        time.sleep(0.4)
        collector.stop()
        after = schedstat(process.pid)

    ledger = collector.evidence(run).as_json()["ledger"]
    ran_ms = (after[0] - before[0]) / 1e6
    assert ledger["on_cpu_ms"] <= ran_ms + 11  # a tick
    assert ledger["wall_ms"] >= 400
    assert ledger["runnable_ms"] >= ledger["wall_ms"] - ran_ms - 22
    assert ledger["blocked_ms"] == 0


def schedstat(pid):
    """On-CPU time and time in run queues in ns, and turns."""
    return list(map(int, Path(f"/proc/{pid}/schedstat").read_text().split()))


def test_the_old_rule_is_noticed(crowd, run, monkeypatch):
    """Evidence that counts threads as on a CPU because they are runnable at the end contradicts itself."""

    def booked(now, _before, begin_ns, end_ns):
        name = "blocked_ns" if now.asleep else "on_cpu_ns"
        return Account(end_ns - begin_ns, **{name: end_ns - begin_ns})

    collector = crowd()
    monkeypatch.setattr(sleepers, "_account", booked)

    with pytest.raises(AssertionError, match="on_cpu_within_cpus"):
        collector.evidence(run)


@pytest.mark.parametrize("kind", ["pid", "cgroup"])
@pytest.mark.parametrize("what", ["threads", "processes"])
def test_threads_that_are_born_after_the_end(collector, run, program, kind, what):
    """They are made all the time, and none that was made in the run or after it was there for all of it."""
    with running(program("requests"), what) as process:
        group = cgroup2_mount() / "chainbench-test-requests"
        group.mkdir()
        (group / "cgroup.procs").write_text(str(process.pid))
        collector.start(
            RunRequest(
                target=Target(
                    kind=kind,
                    pid=process.pid if kind == "pid" else None,
                    cgroup=str(group) if kind == "cgroup" else None,
                )
            )
        )
        time.sleep(1)
        collector.stop()
        longest_ms = float(process.stdout.readline())
    group.rmdir()

    evidence = collector.evidence(run).as_json()
    requests = [line for line in evidence["ledger"]["threads"] if line["tid"] != process.pid]
    assert requests
    # the clock of the process does not have its time before it starts to work
    assert max(line["wall_ms"] for line in requests) <= (1.5 * longest_ms + 20 if what == "threads" else 500)


def test_a_leader_that_ended_before_its_threads(collector, run):
    """It waits for nothing: all the time is that of the thread which lives."""
    code = """
import ctypes, threading, time
threading.Thread(target=lambda: (print(flush=True), time.sleep(30))).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    with running(sys.executable, "-c", code) as process:
        time.sleep(0.2)
        collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
        time.sleep(0.3)
        collector.stop()

    evidence = collector.evidence(run).as_json()
    (line,) = evidence["ledger"]["threads"]
    assert line["tid"] != process.pid
    assert evidence["target"]["threads_seen"] == 1
    assert evidence["ledger"]["wall_ms"] == line["wall_ms"] == line["blocked_ms"]


def test_a_zombie_is_no_target(collector):
    """Neither one that nobody has waited for, nor as a part of a tree; and a target that becomes one is gone."""
    zombie = subprocess.Popen(["/bin/true"])
    time.sleep(0.2)
    with pytest.raises(InputError, match=f"process {zombie.pid} has ended"):
        collector.start(RunRequest(target=Target(kind="pid", pid=zombie.pid)))
    code = """
import subprocess, time
child = subprocess.Popen(["/bin/true"])
time.sleep(0.3); print(flush=True); input()
"""
    with running(sys.executable, "-c", code) as process:
        collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
        process.stdin.close()
        time.sleep(0.5)
        gone = collector.target_has_ended()
        collector.stop()

    assert zombie.wait() == 0
    assert gone


IDLE = """
import os, threading
work = threading.Semaphore(0)
def helper():
    while True: work.acquire()
threading.Thread(target=helper, daemon=True).start()
print(flush=True)
while command := os.read(0, 1):
    if command == b"w": work.release()
"""


def test_waking_an_idle_thread_once(collector, run):
    """No total changes by the length of the run, and the time of the idle thread is separate."""
    found = {}
    for wake in ("n", "w"):
        with running(sys.executable, "-c", IDLE) as process:
            until_asleep(process.pid)
            collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
            time.sleep(0.5)
            process.stdin.write(wake)
            process.stdin.flush()
            time.sleep(0.5)
            collector.stop()
        found[wake] = collector.evidence(run).as_json()

    for evidence in found.values():
        length, offcpu, locks = run_ms(evidence), evidence["offcpu"], evidence["locks"]
        assert offcpu["total_ms"] == pytest.approx(2 * length, rel=0.05)
        assert offcpu["idle_threads_ms"] == pytest.approx(length, rel=0.05)
        assert locks["futex_waited_ms"] == pytest.approx(length, rel=0.05)
        assert locks["futex_idle_waited_ms"] == pytest.approx(length, rel=0.05)
        assert offcpu["top_processes"][0]["off_cpu_ms"] == pytest.approx(offcpu["total_ms"], abs=0.001)
        assert locks["top_processes"][0]["futex_waited_ms"] == pytest.approx(locks["futex_waited_ms"], abs=0.001)
        idle = evidence["ledger"]["idle_threads"]
        assert (idle["threads"], idle["wall_ms"]) == (1, pytest.approx(length))
        assert idle["blocked"][0]["category"] == "futex/lock"
    assert found["n"]["locks"]["futex_waits"] == found["n"]["locks"]["futex_idle_waits"] == 1
    assert "avg_wait_time_without_idle_us" not in found["n"]["locks"]


def test_threads_that_work_are_shown(targeted):
    """25 helpers that were there before hide none of the four threads that do the work."""
    code = """
workers = [threading.Thread(target=work) for _ in range(4)]
for thread in workers: thread.start()
for thread in workers: thread.join()
os._exit(0)
"""
    setup = """
import hashlib, os, threading, time
def work():
    block, end = b"x" * (1 << 20), time.thread_time() + 0.1
    while time.thread_time() < end: hashlib.sha256(block).digest()
for _ in range(25): threading.Thread(target=threading.Event().wait, daemon=True).start()
time.sleep(0.5)  # all of them wait by then
"""
    one = targeted(code, setup)
    ledger = one.run()["ledger"]

    assert ledger["threads"][0]["tid"] == one.process.pid
    assert sum(line["on_cpu_ms"] >= 90 for line in ledger["threads"]) == 4
    assert sum(line["on_cpu_ms"] for line in ledger["threads"]) >= 0.9 * ledger["on_cpu_ms"]
    assert ledger["idle_threads"]["threads"] in {24, 25}  # the last thread to end gives the memory back, which is work
    assert ledger["threads_not_shown"] == 30 - len(ledger["threads"])


def test_a_command_is_checked_against_the_kernel(targeted):
    """All of its threads have ended with the run; getrusage() says what they were on the CPUs for."""
    code = """
import threading, time
def work():
    end = time.thread_time() + 0.1
    while time.thread_time() < end: pass
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    one = targeted(code)
    until_asleep(one.process.pid)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = sum(map(int, Path(f"/proc/{one.process.pid}/schedstat").read_text().split()[:1])) / 1e6
    evidence = one.run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_ms = 1e3 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) - began

    checks = evidence["cross_check"]
    on_cpu, runnable = checks["ledger.on_cpu_ms"], checks["ledger.runnable_ms"]
    assert on_cpu["ebpf"] == pytest.approx(evidence["ledger"]["on_cpu_ms"], abs=0.001)
    assert on_cpu["kernel"] == pytest.approx(used_ms, rel=0.02, abs=2)
    ours, theirs = on_cpu["ebpf"] + runnable["ebpf"], on_cpu["kernel"] + runnable["kernel"]
    assert ours == pytest.approx(theirs, rel=0.25 if EMULATED else 0.05, abs=5 + evidence["ledger"]["unexplained_ms"])
