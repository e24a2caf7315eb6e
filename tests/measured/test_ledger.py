"""Known times are in the right line of the ledger, and the lines add up to the wall time."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from emulation import EMULATED

from chainbench_agent.evidence.model import Target
from chainbench_agent.model.run_request import RunRequest

pytestmark = pytest.mark.bpf

V1 = Path("/sys/fs/cgroup/cpu")


def categories(line):
    return {category["category"]: category["ms"] for category in line["blocked"]}


def assert_adds_up(evidence):
    """All time is on_cpu, runnable, blocked or unexplained, and next to none unexplained: as a whole, and by thread.

    Where the kernel did not show a switch, the interval that spans it is unexplained, and said to be lost.
    """
    ledger, seen = evidence["ledger"], "unseen_switches" not in evidence["loss"]["causes"]
    for line in (ledger, *ledger["threads"]):
        parts = line["on_cpu_ms"] + line["runnable_ms"] + line["blocked_ms"] + line["unexplained_ms"]
        assert parts == pytest.approx(line["wall_ms"], abs=0.01)
        assert sum(categories(line).values()) == pytest.approx(line["blocked_ms"], abs=0.01)
        assert not seen or abs(line["unexplained_ms"]) <= max(0.01 * line["wall_ms"], 0.05)


def test_a_sleep_is_blocked_time(targeted):
    evidence = targeted("import time; time.sleep(0.5)").run_seen()
    ledger = evidence["ledger"]

    assert 0.95 * 500 <= categories(ledger)["sleep"] <= 560
    assert_adds_up(evidence)


def test_a_wait_for_a_lock_is_blocked_time(targeted):
    """Half a second, while another thread has the lock."""
    code = """
import threading, time
lock = threading.Lock()
def holder():
    with lock: held.set(); time.sleep(0.5)
held = threading.Event()
threading.Thread(target=holder).start(); held.wait()
with lock: pass
"""
    evidence = targeted(code).run_seen()
    ledger = evidence["ledger"]

    assert 0.95 * 500 <= categories(ledger)["futex/lock"] <= 650
    assert 0.95 * 500 <= categories(ledger)["sleep"] <= 560
    assert_adds_up(evidence)


SPIN = "import time\nend = time.thread_time() + {}\nwhile time.thread_time() < end: pass\n"


def test_computing_is_on_cpu_time(targeted):
    """Half a second, also by the kernel's own account."""
    evidence = targeted(SPIN.format(0.5)).run_seen()

    # and what the interpreter needs to end
    assert 500 <= evidence["ledger"]["on_cpu_ms"] <= (1500 if EMULATED else 600)
    assert_adds_up(evidence)


def test_two_processes_that_exchange_bytes_wait_for_the_pipe(targeted):
    """On one CPU, each for the byte of the other."""
    code = """
import os
os.sched_setaffinity(0, {0})
a, b = os.pipe(), os.pipe()
if os.fork() == 0:
    for _ in range(5003): os.read(a[0], 1); os.write(b[1], b"x")
    os._exit(0)
for _ in range(5003): os.write(a[1], b"x"); os.read(b[0], 1)
os.wait()
"""
    evidence = targeted(code).run_seen()

    ledger = evidence["ledger"]
    blocked = categories(ledger)
    assert blocked["pipe"] >= 0.95 * (ledger["blocked_ms"] - blocked.get("wait_child", 0) - blocked.get("other", 0))
    assert evidence["syscall_counts"]["read"] >= 2 * 5003
    assert_adds_up(evidence)


MARKER = Path("/sys/kernel/tracing/instances/chainbench-test/trace_marker")


@pytest.fixture
def waits():
    """`waits(pid)` → a function that answers how many ms each uninterruptible sleep of a thread lasted, by ftrace.

    Until it writes into the marker: the end of a process may have to wait as well, for what else it had open.
    """
    trace = MARKER.parent
    if not trace.parent.is_dir():
        pytest.skip("There is no tracefs: as root, `mount -t tracefs tracefs /sys/kernel/tracing`.")
    trace.mkdir()

    def watch(pid):
        (trace / "trace_clock").write_text("mono")  # and forgets what was there
        for event, of in (("sched_switch", "prev_pid"), ("sched_wakeup", "pid")):
            (trace / f"events/sched/{event}/filter").write_text(f"{of} == {pid}")
            (trace / f"events/sched/{event}/enable").write_text("1")
        return lambda: list(uninterruptible((trace / "trace").read_text().partition("tracing_mark_write: done")[0]))

    yield watch
    trace.rmdir()


def uninterruptible(trace):
    """From a thread's leaving in state D to its wake-up: ms of each."""
    since = None
    for line in trace.splitlines():
        if event := re.search(r" (\d+\.\d+): (sched_switch|sched_wakeup): .*", line):
            at_ms = 1e3 * float(event[1])
            if event[2] == "sched_switch":
                since = at_ms if "prev_state=D" in event[0] else None
            elif since is not None:
                yield at_ms - since
                since = None


def test_direct_reads_wait_for_the_disk(targeted, tmp_path, waits):
    """The time that a thread waits for a disk is under disk: all the time that the kernel's own tracer saw."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(8 << 20))
    os.sync()
    code = f"""
import mmap, os
fd = os.open({str(path)!r}, os.O_RDONLY | os.O_DIRECT)
buffer = mmap.mmap(-1, 1 << 20)
for i in range(40): os.preadv(fd, [buffer], i % 8 << 20)
with open({str(MARKER)!r}, "w") as marker: marker.write("done")
"""
    waited_ms = []
    evidence = targeted(code).run_seen(lambda one: waited_ms.append(waits(one.process.pid)))
    known_ms = waited_ms[-1]()

    assert evidence["biolatency"]["count"] >= 40
    assert known_ms  # of some reads: a fast disk may have answered before the thread had left its CPU
    # where a wait is shorter than two programs take, what is between the tracer's look and ours is a part of it
    exactly = 0.5 if EMULATED else 0.05
    assert categories(evidence["ledger"])["disk"] == pytest.approx(sum(known_ms), rel=exactly)
    assert_adds_up(evidence)


def test_four_spinners_on_one_cpu_are_mostly_runnable(targeted):
    """Each has a quarter of the CPU, and no other line."""
    code = f"""
import os
os.sched_setaffinity(0, {{0}})
for _ in range(4):
    if os.fork() == 0:
        {SPIN.format(0.25).replace(chr(10), chr(10) + " " * 8)}
        os._exit(0)
for _ in range(4): os.wait()
"""
    parent = targeted(code)
    evidence = parent.run_seen()
    ledger = evidence["ledger"]

    spinners = [t for t in ledger["threads"] if t["on_cpu_ms"] >= 240 and t["tid"] != parent.process.pid]
    assert len(spinners) == 4
    for thread in spinners:
        assert thread["on_cpu_ms"] + thread["runnable_ms"] >= 0.95 * thread["wall_ms"]
    # of four at a time three wait; the first begins before the last, and ends before it
    assert sum(t["runnable_ms"] for t in spinners) >= 1.5 * sum(t["on_cpu_ms"] for t in spinners)
    assert_adds_up(evidence)


@pytest.fixture
def limited():
    """A cgroup with a 25th of a CPU; `limited` is the file that lets a process in."""
    if V1.is_dir():
        group = V1 / "chainbench-test-ledger"
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("4000")
    else:
        root = Path("/sys/fs/cgroup")
        (root / "cgroup.subtree_control").write_text("+cpu")
        group = root / "chainbench-test-ledger"
        group.mkdir()
        (group / "cpu.max").write_text("4000 100000")
    yield group / "cgroup.procs"
    group.rmdir()


def test_a_target_is_throttled_as_long_as_its_cgroup(targeted, limited):
    """A spinner with a 25th of a CPU, but for the period in which it ends."""
    code = f"import os\nopen({str(limited)!r}, 'w').write(str(os.getpid()))\n{SPIN.format(0.04)}"

    evidence = targeted(code).run_seen()

    throttled_ms = evidence["cpu"]["throttled_ms"]
    assert throttled_ms > 300
    assert categories(evidence["ledger"])["throttled"] == pytest.approx(throttled_ms, rel=0.05, abs=100)
    assert_adds_up(evidence)


def test_a_thread_that_sleeps_through_the_run_was_blocked(collector, run):
    """In the function and the system call that the kernel names, also in offcpu."""
    code = "import signal, sys\nprint(flush=True)\nsignal.sigtimedwait({signal.SIGUSR1}, 60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        subprocess.run(["sleep", "0.2"], check=True)
        collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
        subprocess.run(["sleep", "0.3"], check=True)
        collector.stop()
        process.kill()

    evidence = collector.evidence(run).as_json()
    ledger = evidence["ledger"]
    assert ledger["wall_ms"] == ledger["blocked_ms"] >= 300
    (thread,) = ledger["threads"]
    (category,) = thread["blocked"]
    assert category["category"] == "sleep"
    assert category["reasons"][0]["syscall"] == "rt_sigtimedwait"
    assert evidence["offcpu"]["total_ms"] == ledger["blocked_ms"]
    (reason,) = evidence["offcpu"]["top_reasons"]
    assert (reason["syscall"], reason["sampled_percent"]) == ("rt_sigtimedwait", 100)
    assert_adds_up(evidence)
