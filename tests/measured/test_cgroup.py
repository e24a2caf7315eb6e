"""A cgroup as the target: processes in it, processes that join or leave it, and a cgroup that is made again."""

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from asleep import until_asleep

from chainbench_agent.evidence.model import Target
from chainbench_agent.kernel.targets.cgroups import cgroup2_mount
from chainbench_agent.model.run_request import RunRequest

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("noise")]


@pytest.fixture
def group():
    mount = cgroup2_mount()
    group = mount / "chainbench-test-target"
    (group / "below").mkdir(parents=True)
    yield group
    (group / "below").rmdir()
    group.rmdir()


def moving(group):
    return f"def move(to): open({str(group)!r} + to + '/cgroup.procs', 'w').write(str(os.getpid()))\n"


def test_a_cgroup_and_what_is_below_it(targeted, group):
    """A process that joins, in the group or below it, is counted from then on; a process that leaves is not."""
    code = f"""
import ctypes, os, time
c = ctypes.CDLL(None)
{moving(group)}
def call(n):
    time.sleep(0.01)  # a switch: membership is looked at when a thread comes onto a CPU
    for _ in range(n): c.personality(0xffffffff)
call(1000)
move(''); call(7)
move('/below'); call(11)
move('/..'); call(100)
move(''); call(13)
move('/..')
"""
    evidence = targeted(code).run(Target(kind="cgroup", cgroup=str(group)))

    assert evidence["syscall_counts"]["personality"] == 7 + 11 + 13
    assert evidence["target"]["processes_seen"] == 1


def test_processes_of_a_cgroup(collector, run, group):
    """A process that sleeps, one that works, and 29 that start and end are in it; a process outside is not."""
    code = "import os, sys, time\nprint(flush=True)\nsys.stdin.readline()\n"
    forks = "for _ in range(29):\n if os.fork() == 0: os._exit(0)\n os.wait()\ntime.sleep(0.2)"
    command = [sys.executable, "-c", code + forks]
    asleep, at_work, beside = (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)
    )
    for process in (asleep, at_work, beside):
        process.stdout.readline()
    for process in (asleep, at_work):
        (group / "cgroup.procs").write_text(str(process.pid))
        until_asleep(process.pid)
    collector.start(RunRequest(target=Target(kind="cgroup", cgroup=str(group))))
    for process in (at_work, beside):
        process.communicate(b"\n")
    collector.stop()
    asleep.communicate(b"\n")

    assert collector.evidence(run).as_json()["target"]["processes_seen"] == 1 + 1 + 29


@pytest.mark.parametrize("how", ["out", "in", "out, and woken", "in, and woken"])
def test_moved_while_asleep(collector, run, targeted, group, how):
    """The sleep is cut where it was moved, whether or not it is over when the run is."""
    into = how.startswith("in")
    before, after = (group.parent, group) if into else (group, group.parent)
    code = (
        "began = time.monotonic()\ntime.sleep(0.3)\nprint(time.monotonic() - began, flush=True)\nsys.stdin.readline()"
    )
    process = targeted(code, "import time").process
    (before / "cgroup.procs").write_text(str(process.pid))
    until_asleep(process.pid)
    began = time.monotonic()
    collector.start(RunRequest(target=Target(kind="cgroup", cgroup=str(group))))
    process.stdin.write("\n")
    process.stdin.flush()
    waited_ms = (time.monotonic() - began) * 1000
    first_ms = float(process.stdout.readline()) * 1000
    until_asleep(process.pid)
    fell_asleep = time.monotonic()
    (after / "cgroup.procs").write_text(str(process.pid))
    moved_ms = (time.monotonic() - fell_asleep) * 1000
    time.sleep(0.5)
    slept_ms = (time.monotonic() - fell_asleep) * 1000
    if "woken" in how:
        process.communicate("\n")
    collector.stop()
    process.communicate("\n" if process.returncode is None else None)

    evidence = collector.evidence(run).as_json()
    asleep_ms = sum(category["ms"] for category in evidence["ledger"]["blocked"] if category["category"] == "sleep")
    blocked_ms = evidence["ledger"]["blocked_ms"]
    assert evidence["target"]["threads_seen"] == evidence["target"]["processes_seen"] == 1
    assert evidence["ledger"]["unexplained_ms"] == 0 or evidence["loss"]["causes"]["unseen_switches"]
    if into:
        assert asleep_ms == 0
        assert slept_ms <= blocked_ms + moved_ms
    else:
        assert 0.95 * 300 <= asleep_ms <= first_ms
        assert blocked_ms - asleep_ms <= waited_ms + (fell_asleep - began) * 1000 + moved_ms - first_ms


THREADS = """
import ctypes, sys, threading, time
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
def call():
    while True: ctypes.CDLL(None).usleep(5_000)
threading.Thread(target=call, daemon=True).start()
time.sleep(0.1)
print(flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["out", "in"])
def test_moved_with_all_threads(collector, run, group, how):
    """Three threads, of which one does something all the time: each has as much wall time as it was in the target."""
    before, after = (group.parent, group) if how == "in" else (group, group.parent)
    with subprocess.Popen([sys.executable, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        (before / "cgroup.procs").write_text(str(process.pid))
        earliest = time.monotonic()
        collector.start(RunRequest(target=Target(kind="cgroup", cgroup=str(group))))
        latest = time.monotonic()
        time.sleep(0.3)
        moving = time.monotonic()
        (after / "cgroup.procs").write_text(str(process.pid))
        moved = time.monotonic()
        time.sleep(0.5)
        stopping = time.monotonic()
        collector.stop()
        stopped = time.monotonic()
        process.kill()

    evidence = collector.evidence(run).as_json()
    least, most = (stopping - moved, stopped - moving) if how == "in" else (moving - latest, moved - earliest)
    assert evidence["target"]["threads_seen"] == 3
    assert "moves_unseen" not in evidence["loss"]["causes"]
    assert 3000 * least <= evidence["ledger"]["wall_ms"] <= 3000 * most
    for thread in evidence["ledger"]["threads"]:
        assert 1000 * least <= thread["wall_ms"] <= 1000 * most
        assert abs(thread["unexplained_ms"]) < 1 or evidence["loss"]["causes"]["unseen_switches"]


def test_the_cross_check_without_who_joined(collector, run, targeted, group):
    """The kernel's account also has what a thread did before it joined, which is not part of the run."""
    code = "sum(range(1_000_003))\nprint(flush=True)\nsys.stdin.readline()"
    joins = targeted(code, "import sys, time\nwhile time.process_time() < 0.5: pass").process
    until_asleep(joins.pid)
    collector.start(RunRequest(target=Target(kind="cgroup", cgroup=str(group))))
    (group / "cgroup.procs").write_text(str(joins.pid))
    joins.stdin.write("\n")
    joins.stdin.flush()
    joins.stdout.readline()
    collector.stop()
    joins.communicate("\n")

    evidence = collector.evidence(run).as_json()
    assert evidence["ledger"]["on_cpu_ms"] > 0
    assert evidence["cross_check"] == {}


def test_a_cgroup_that_is_made_again(collector, run, group):
    """It is another one by that name: the target is gone, and who sleeps in the other has no place in the ledger."""
    collector.start(RunRequest(target=Target(kind="cgroup", cgroup=str(group))))
    (group / "below").rmdir()
    group.rmdir()
    (group / "below").mkdir(parents=True)
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as other:
        (group / "cgroup.procs").write_text(str(other.pid))
        until_asleep(other.pid)
        gone = collector.target_has_ended()
        collector.stop()
        other.stdin.close()

    evidence = collector.evidence(run).as_json()
    assert gone
    space = str(Path("/proc/self/ns/pid").readlink())
    seen = {"processes_seen": 0, "threads_seen": 0, "pid_namespace": space}
    assert evidence["target"] == {"kind": "cgroup", "cgroup": str(group), **seen}
    assert evidence["ledger"]["wall_ms"] == 0


@pytest.mark.parametrize("way", ["in", "out", "in and out"])
def test_moved_while_it_runs(collector, run, group, way):
    """A real-time thread that is hardly ever switched: the CPU time that the kernel has for it between the moves."""
    spins = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(["chrt", "-f", "1", "taskset", "-c", "1", *spins]) as process:
        schedstat = Path(f"/proc/{process.pid}/schedstat")
        while Path(f"/proc/{process.pid}/comm").read_text() in {"chrt\n", "taskset\n"}:
            time.sleep(0.01)
        (group if way == "out" else group.parent).joinpath("cgroup.procs").write_text(str(process.pid))
        collector.start(RunRequest(target=Target(kind="cgroup", cgroup=str(group))))
        times = [int(schedstat.read_text().split()[0])]
        for into in {"in": (group,), "out": (group.parent,), "in and out": (group, group.parent)}[way]:
            time.sleep(0.3)
            (into / "cgroup.procs").write_text(str(process.pid))
            times.append(int(schedstat.read_text().split()[0]))
        time.sleep(0.3)
        times.append(int(schedstat.read_text().split()[0]))
        collector.stop()
        process.kill()

    evidence = collector.evidence(run).as_json()
    parts = [(after - before) / 1e6 for before, after in pairwise(times)]
    inside = parts[0 if way == "out" else 1]
    assert evidence["ledger"]["on_cpu_ms"] == pytest.approx(inside, abs=60)  # what the real-time limit takes is in it
    assert evidence["cpu"]["on_cpu_ms"] == pytest.approx(evidence["ledger"]["on_cpu_ms"], abs=0.001)
    assert evidence["target"]["threads_seen"] == 1
