"""Targets in other namespaces: cgroup and PID namespaces of the runner, threaded cgroups, lost parents."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from asleep import until_asleep

from chainbench_agent.evidence.model import Target
from chainbench_agent.kernel.targets.cgroups import cgroup2_mount
from chainbench_agent.model.run_request import RunRequest

pytestmark = pytest.mark.bpf

CALLS = "import ctypes, os, sys\nc = ctypes.CDLL(None)\ndef call(n):\n for _ in range(n): c.personality(0xffffffff)\n"
SAYS = "print(flush=True); sys.stdin.readline()\n"
NAMESPACE = str(Path("/proc/self/ns/pid").readlink())


@pytest.fixture
def group():
    group = cgroup2_mount() / "chainbench-test-namespaces"
    (group / "below").mkdir(parents=True)
    yield group
    (group / "below").rmdir()
    group.rmdir()


@pytest.fixture
def started(group):
    """`started(code, *wrap)` → a Python process that has said a line."""
    del group  # who was in it ends first
    processes = []

    def start(code, *wrap):
        command = [*wrap, sys.executable, "-c", CALLS + code]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        process.said = process.stdout.readline().strip()
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def goes_on(process):
    """A line in, and the next one out."""
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@pytest.mark.parametrize("path", ["/", "/below", "{group}"])
def test_a_cgroup_is_the_one_in_the_runners_namespace(collector, run, started, group, path):
    """Its 307 calls count, the 1,009 of another process do not.  Its path is translated, and the evidence has both."""
    join = f"open({str(group)!r} + sys.argv[1], 'w').write(str(os.getpid()))\n"
    unshare = "assert c.unshare(0x02000000) == 0\n"
    code = join.replace("sys.argv[1]", "'/cgroup.procs'") + unshare
    code += join.replace("sys.argv[1]", "'/below/cgroup.procs'") + SAYS + "call(307)\n" + SAYS
    runner = started(code)
    beside = started(SAYS + "call(1009)")
    sent = path.format(group=group)
    collector.start(RunRequest(target=Target(kind="cgroup", cgroup=sent), caller=runner.pid))
    beside.communicate("\n")
    goes_on(runner)
    collector.stop()

    evidence = collector.evidence(run).as_json()
    here = {"/": f"/{group.name}", "/below": f"/{group.name}/below"}.get(path)
    assert evidence["syscall_counts"]["personality"] == 307
    assert evidence["target"].get("cgroup_as_sent") == (sent if here else None)
    assert evidence["target"]["cgroup"] == here or not here


def test_a_pid_is_the_one_in_the_runners_namespace(collector, run, started):
    """It is 1 there; the evidence has the agent's numbers, and says so."""
    space = ("unshare", "--pid", "--fork", "--mount-proc")
    runner = started("print(os.getpid(), flush=True); sys.stdin.readline()\ncall(401)\n" + SAYS, *space)
    here = int(Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text())
    assert runner.said == "1"
    collector.start(RunRequest(target=Target(kind="pid", pid=1), caller=here))
    goes_on(runner)
    collector.stop()

    evidence = collector.evidence(run).as_json()
    target = evidence["target"]
    assert evidence["syscall_counts"]["personality"] == 401
    assert (target["pid"], target["pid_as_sent"], target["pid_namespace"]) == (here, 1, NAMESPACE)
    assert [thread["pid"] for thread in evidence["ledger"]["threads"]] == [here]
    assert [line["pid"] for line in evidence["syscall_counts"]["top_processes"]] == [here]


def test_the_agents_own_number_is_reported_once(collector, run, started):
    runner = started(SAYS)
    collector.start(RunRequest(target=Target(kind="pid", pid=runner.pid), caller=runner.pid))
    collector.stop()

    assert "pid_as_sent" not in collector.evidence(run).as_json()["target"]


THREADS = """
import threading, time
def work():
    print(threading.get_native_id(), flush=True)
    sys.stdin.readline(); call(211); print(flush=True); time.sleep(1000)
def idle():
    print(threading.get_native_id(), flush=True); time.sleep(1000)
for one in (idle, work):
    threading.Thread(target=one, daemon=True).start(); time.sleep(0.1)
call(1009); time.sleep(1000)
"""


@pytest.mark.parametrize("nested", [False, True], ids=["threaded", "above it"])
def test_a_threaded_cgroup_is_a_target(collector, run, started, group, nested):
    """Two threads of a process are in it, one of which sleeps.  The run lasts while they live; also from above."""
    process = started(THREADS)
    tids = {int(process.said), int(process.stdout.readline())}
    vcpu = group / "below"
    (vcpu / "cgroup.type").write_text("threaded")
    (group / "cgroup.procs").write_text(str(process.pid))
    for tid in tids:
        (vcpu / "cgroup.threads").write_text(str(tid))
    time.sleep(0.2)
    collector.start(RunRequest(target=Target(kind="cgroup", cgroup=str(group if nested else vcpu))))
    goes_on(process)
    gone = collector.target_has_ended()
    collector.stop()

    evidence = collector.evidence(run).as_json()
    expected = {*tids, process.pid} if nested else tids
    assert not gone
    assert {thread["tid"] for thread in evidence["ledger"]["threads"]} == expected
    assert evidence["target"]["threads_seen"] == len(expected)
    assert evidence["target"]["processes_seen"] == 1
    assert evidence["syscall_counts"]["personality"] == 211
    process.kill()
    process.wait()
    assert not collector._machine.target_processes()


DAEMON = """
def daemon(program):
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            os.read(read, 1)
            program()
        print(pid, flush=True)
        os._exit(0)
    os.wait()
read, write = os.pipe()
os.set_inheritable(read, True)
"""


def test_a_daemon_that_lost_its_parents_before_the_run(collector, run, started):
    """503 calls of it count: it was forked from the program that the target runs."""
    process = started(DAEMON + "daemon(lambda: (call(503), os._exit(0)))\nsys.stdin.readline()\nos.write(write, b'x')\n"
                      "import time; time.sleep(0.3)\n" + SAYS)  # fmt: skip
    until_asleep(int(process.said))
    collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
    goes_on(process)
    collector.stop()

    evidence = collector.evidence(run).as_json()
    assert evidence["syscall_counts"]["personality"] == 503
    assert evidence["target"]["processes_seen"] == 2
    assert int(process.said) not in {line["pid"] for line in evidence["target"]["outside"]}


def test_a_daemon_that_executed_another_program(collector, run, started):
    """Nothing tells that it descends from the target: it is not counted, and the evidence names it."""
    code = "daemon(lambda: os.execvp('sleep', ['sleep', '1000']))\nos.write(write, b'x')\n"
    process = started(DAEMON + "print(os.getpid(), flush=True)\n" + code + "sys.stdin.readline()\n")
    daemon = int(process.stdout.readline())
    while Path(f"/proc/{daemon}/comm").read_text() != "sleep\n":
        time.sleep(0.01)
    collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
    collector.stop()
    os.kill(daemon, 9)

    target = collector.evidence(run).as_json()["target"]
    assert target["processes_seen"] == 1
    assert {"pid": daemon, "command": "sleep", "shares": "cgroup"} in target["outside"]
