"""Figures of single processes: known work in each is exact, and all processes together are the whole."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from asleep import until_asleep
from emulation import SCALE

from chainbench_agent.evidence.metric_keys import reported_key
from chainbench_agent.evidence.model import Target
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.probes import CATALOG, HOOKS

pytestmark = pytest.mark.bpf

SLICE_MS = 4
"""As long as a thread runs when others wait: 3 ms to the next tick, or the 2.8 ms of newer kernels' base slice."""

OPTIONAL = {hook.name for hook in HOOKS if hook.option}
FIGURES = {
    m.section_key: tuple(reported_key(metric) for metric in m.per_process if not OPTIONAL.intersection(metric.hooks))
    for m in CATALOG
    if m.per_process
}
"""Without options, whose tests cover their figures."""

THE_WHOLE = {
    "off_cpu_ms": lambda offcpu: offcpu["total_ms"],
    "wait_ms": lambda runqlat: runqlat["sum_us"] / 1e3,
    "requests": lambda biolatency: biolatency["count"],
}
"""Figures that their section itself tells by another name."""


def assert_whole(evidence):
    """Every figure of every module: what the processes did and what others did is what the section says itself."""
    for section, figures in FIGURES.items():
        found = evidence[section]
        assert list(found["other_processes"]) == list(figures)
        for figure in figures:
            parts = [*found["top_processes"], found["other_processes"]]
            assert all(part[figure] >= 0 for part in parts), (section, figure)
            whole = THE_WHOLE.get(figure, lambda of, figure=figure: of[figure])(found)
            # in milliseconds all are whole nanoseconds
            assert round(sum(p[figure] for p in parts) * 1e6) == round(whole * 1e6), (section, figure)


def told(evidence, section):
    """Pid → the evidence of the process."""
    return {process["pid"]: process for process in evidence[section]["top_processes"]}


CHILDREN = """
import os, subprocess, threading
def child(calls, forks=0, programs=0, threads=0):
    pid = os.fork()
    if pid: return pid
    for _ in range(calls): os.getppid()
    for _ in range(forks):
        if not (grandchild := os.fork()): os._exit(0)
        os.waitpid(grandchild, 0)
    for _ in range(programs): subprocess.run(["/bin/true"])
    for _ in range(threads): t = threading.Thread(target=int); t.start(); t.join()
    os._exit(0)
pids = [child(1009), child(503, forks=23), child(251, programs=7, threads=19), child(0)]
for pid in pids: os.waitpid(pid, 0)
print(os.getpid(), *pids)
"""


@pytest.mark.parametrize("machine", [False, True], ids=["target", "machine"])
def test_each_process_is_reported(collector, targeted, machine):
    """23 forks in one, 7 programs and 19 threads in another; 1,009, 503 and 251 calls in three."""
    one = targeted(CHILDREN)
    evidence = one.run(Target() if machine else None)
    parent, many, forking, various, idle = map(int, one.output.split())
    assert_whole(evidence)

    records = {process.pid: process for process in collector._last.processes}  # of a machine, others may be the top
    born = {pid: records[pid].figures["exec"] for pid in (parent, many, forking, various, idle)}
    none = {"exec_count": 0, "exec_failures": 0, "forks": 0, "threads_created": 0}
    assert born[parent] == none | {"forks": 4}
    assert born[many] == born[idle] == none
    assert born[forking] == none | {"forks": 23}
    assert born[various] == none | {"forks": 7, "threads_created": 19}
    assert records[many].command == records[parent].command == Path(sys.executable).name[:15]
    calls = {pid: records[pid].figures["syscalls"]["total"] for pid in (many, forking, idle)}
    assert calls[many] - calls[idle] == 1009
    assert 503 + 2 * 23 <= calls[forking] - calls[idle] <= 503 + 10 * 23  # a fork and a wait, and what Python does then


def test_exact_calls_of_each(targeted):
    """The kernel's own word for what a child did: to the call, by the name of the program that it became."""
    code = """
import os
def child(n):
    pid = os.fork()
    if pid == 0: os.execv("/bin/dd", ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={n}", "status=none"])
    os.waitpid(pid, 0)
    return pid
print(*[child(n) for n in (0, 1009, 503, 251)])
"""
    one = targeted(code)
    evidence = one.run()
    none, *pids = map(int, one.output.split())
    assert_whole(evidence)

    calls = told(evidence, "syscall_counts")
    of_none = calls[none]["total"]
    # dd with count=0 does all that the others do but for a read and a write each time
    assert [calls[pid]["total"] - of_none for pid in pids] == [2 * 1009, 2 * 503, 2 * 251]
    assert {calls[pid]["command"] for pid in pids} == {"dd"}
    assert [told(evidence, "exec")[pid]["exec_count"] for pid in pids] == [1, 1, 1]


def test_after_many_processes(targeted):
    """After 20,000 processes have started and ended, one that then does much is among the top processes."""
    count = 20_000 // SCALE
    code = f"""
import os
for _ in range({count}):
    pid = os.fork()
    if pid == 0: os.getppid(); os._exit(0)
    os.waitpid(pid, 0)
pid = os.fork()
if pid == 0:
    for _ in range(50021): os.getppid()
    os._exit(0)
os.waitpid(pid, 0)
print(os.getpid(), pid)
"""
    one = targeted(code)
    evidence = one.run()
    parent, late = map(int, one.output.split())
    assert_whole(evidence)

    calls = told(evidence, "syscall_counts")
    assert 50_021 <= calls[late]["total"] <= 50_021 + 50
    assert calls[parent]["total"] >= 2 * count
    assert told(evidence, "exec")[parent]["forks"] == evidence["exec"]["forks"] == count + 1
    assert evidence["target"]["processes_seen"] == count + 2


WAITING = """
import os, sys
read, write = os.pipe()
pids = []
for calls in (1009, 503, 251):
    pid = os.fork()
    if pid == 0:
        os.read(read, 1)
        for _ in range(calls): os.getppid()
        os._exit(0)
    pids.append(pid)
print(*pids, flush=True)
sys.stdin.readline()
os.write(write, b"xxx")
for pid in pids: os.waitpid(pid, 0)
"""


@pytest.mark.parametrize("machine", [False, True], ids=["target", "machine"])
def test_processes_from_before_the_run(collector, run, machine):
    """Asleep since before it began; each with what it does in the run."""
    with subprocess.Popen(
        [sys.executable, "-c", WAITING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        for pid in pids:
            until_asleep(pid)
        collector.start(RunRequest(target=Target() if machine else Target(kind="pid", pid=process.pid)))
        process.communicate("\n")
        collector.stop()
    evidence = collector.evidence(run).as_json()
    assert_whole(evidence)

    calls = told(evidence, "syscall_counts")
    # besides the loop only exit_group: the read was entered before the run
    assert [calls[pid]["total"] for pid in pids if pid in calls] == [n + 1 for n in (1009, 503, 251)][: len(calls)]
    assert pids[0] in calls


def test_a_process_in_the_midst_of_its_calls(collector, run):
    """A run of the whole machine that begins while it calls: all its calls are its own, from the first on."""
    code = "import ctypes\ncall = ctypes.CDLL(None).personality\nprint(flush=True)\nwhile True: call(0xffffffff)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        collector.start(RunRequest())
        time.sleep(0.3)
        collector.stop()
        process.kill()
    evidence = collector.evidence(run).as_json()
    assert_whole(evidence)

    made = told(evidence, "syscall_counts")[process.pid]["total"]
    assert made == evidence["syscall_counts"]["personality"] > 0, (evidence["syscall_counts"], evidence["loss"])


def test_time_against_rusage(targeted):
    """A spinning child ran as long as wait4 says, within 2 %, and left its CPU as often.

    Where the kernel hides switches (the evidence says how many), each may have cost it the slice that it cut.
    """
    code = """
import os, time
pid = os.fork()
if pid == 0:
    while time.process_time() < 0.5: pass
    os._exit(0)
_, _, usage = os.wait4(pid, 0)
print(pid, 1000 * (usage.ru_utime + usage.ru_stime), usage.ru_nvcsw + usage.ru_nivcsw)
"""
    one = targeted(code)
    evidence = one.run()
    pid, cpu_ms, switches = one.output.split()
    assert_whole(evidence)

    found = told(evidence, "cpu")[int(pid)]
    hidden_ms = SLICE_MS * evidence["loss"]["causes"].get("unseen_switches", 0)
    # its rusage is closed between its last step and its last switch, and leaves out what interrupts took
    assert 0.98 * float(cpu_ms) - hidden_ms <= found["on_cpu_ms"] <= 1.02 * float(cpu_ms)
    assert found["context_switches"] - int(switches) in {0, 1}


def test_two_cpus_in_one_record(targeted):
    """Two threads of one process make 500,000 calls each, at the same time, and none is lost."""
    count = 500_000 // SCALE
    if len(os.sched_getaffinity(0)) < 2:
        pytest.fail("there is one CPU only: two threads cannot meet in a record")
    code = f"""
import ctypes, os, threading
libc = ctypes.CDLL(None)
barrier = threading.Barrier(2)
def work(cpu):
    os.sched_setaffinity(0, [cpu])
    barrier.wait()
    for _ in range({count}): libc.personality(0xffffffff)
pid = os.fork()
if pid == 0:
    threads = [threading.Thread(target=work, args=(cpu,)) for cpu in sorted(os.sched_getaffinity(0))[:2]]
    for t in threads: t.start()
    for t in threads: t.join()
    os._exit(0)
os.waitpid(pid, 0)
print(pid)
"""
    one = targeted(code)
    evidence = one.run()
    pid = int(one.output)
    assert_whole(evidence)

    calls = evidence["syscall_counts"]
    process = told(evidence, "syscall_counts")[pid]
    assert calls["personality"] == 2 * count
    by_name = sum(n for name, n in calls.items() if isinstance(n, int) and name != "total")
    assert by_name == calls["total"]
    rest = sum(p["total"] for p in [*calls["top_processes"], calls["other_processes"]] if p is not process)
    assert process["total"] == calls["total"] - rest
    assert process["total"] >= 2 * count
