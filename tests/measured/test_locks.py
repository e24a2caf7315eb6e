"""Waits for locks: futexes in prime counts, the kernel's locks compared with an independent count."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chainbench_agent.evidence.model import Target
from chainbench_agent.model.run_request import RunRequest

pytestmark = pytest.mark.bpf

FUTEX = """
import ctypes, mmap, os, platform, struct, time
libc, word = ctypes.CDLL(None), mmap.mmap(-1, 4096)
place = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(word)))
number = {"aarch64": 98}.get(platform.machine(), 202)
def futex(operation, value, timeout=None):
    return libc.syscall(number, place, operation, value, timeout)
WAIT, WAKE, WAIT_BITSET = 0, 1, 9
"""
HAND_OVER = """
def wait_times(times):
    for _ in range(times):
        assert futex(WAIT, 0) == 0
    os._exit(0)
for times in (503, 506):
    pid = os.fork() or wait_times(times)
woken = wakes = 0
while woken < 1009:
    woken += futex(WAKE, 1)
    wakes += 1
for _ in range(2): os.wait()
for _ in range(101): futex(WAIT, 1)  # it is 0: none of these waits
print(wakes)
"""
TIMED = """
span = struct.pack("qq", 0, 20_000_000)
began = time.monotonic_ns()
for _ in range(53): futex(WAIT, 0, span)
print(time.monotonic_ns() - began)
"""
CONTEND = """
import os, tempfile, time
open("/proc/self/comm", "w").write("NAME")
file = tempfile.TemporaryFile(dir="/dev/shm")
os.write(file.fileno(), bytes(1 << 20))
chunk, end = bytes(1 << 20), time.monotonic() + SECONDS
children = []
for _ in range(3):
    children.append(os.fork())
    if not children[-1]:
        while time.monotonic() < end:
            os.lseek(file.fileno(), 0, 0)      # the position of an open file has a mutex,
            os.read(file.fileno(), 1 << 20)
            os.pwrite(file.fileno(), chunk, 0)  # and who writes into a file holds its rwsem
        os._exit(0)
for child in children: os.waitpid(child, 0)
"""


def contend(name, seconds):
    return CONTEND.replace("NAME", name).replace("SECONDS", str(seconds))


@pytest.fixture
def strangers():
    """Another program that contends for locks and waits on futexes, and is not the target."""
    codes = (contend("stranger", 60), f"{FUTEX}\nspan = struct.pack('qq', 0, 1000)\nwhile True: futex(WAIT, 0, span)")
    processes = [subprocess.Popen([sys.executable, "-c", code], start_new_session=True) for code in codes]
    yield
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def truth(collector, tmp_path):
    """A program that counts the waits of contenders independently, and prints the count when it ends."""
    ready = tmp_path / "ready"
    command = [sys.executable, Path(__file__).parent / "lock_contention.py", ready]
    environment = os.environ | {"BCC_KERNEL_SOURCE": str(collector._machine.unit.header_tree)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as counting:
        while not ready.exists():
            assert counting.poll() is None
            time.sleep(0.05)
        yield counting
        counting.kill()


@pytest.mark.usefixtures("strangers")
def test_futex_waits_exactly(targeted):
    """1,009 waits, each of them ended by one wake; 101 calls that find the futex changed do not wait.

    On kernel 7.2 a thread may be preempted in a program: the kernel skips the program for others on that CPU meanwhile,
    and the evidence says so.
    """
    target = targeted(FUTEX + HAND_OVER)

    evidence = target.run()

    locks, skipped = evidence["locks"], evidence["loss"]["causes"].get("programs_skipped", 0)
    assert 0 <= 1009 - locks["futex_waits"] <= skipped
    assert locks["futex_wait_us"]["count"] == locks["futex_waits"]
    assert 0 <= int(target.output) - locks["futex_wakes"] <= skipped
    waits = sorted(process["futex_waits"] for process in locks["top_processes"] if process["futex_waits"])
    assert waits == [503, 506] or (skipped and sum(waits) == locks["futex_waits"])


def test_futex_waits_last_as_long_as_the_target_measures(targeted):
    """53 waits with a limit of 20 ms are never shorter."""
    target = targeted(FUTEX + TIMED)

    locks = target.run()["locks"]

    assert (locks["futex_waits"], locks["futex_wakes"]) == (53, 0)
    assert locks["futex_wait_us"]["min_us"] >= 20_000
    assert locks["futex_wait_us"]["sum_us"] == pytest.approx(int(target.output) / 1e3, rel=0.05)
    assert locks["futex_waited_ms"] == pytest.approx(locks["futex_wait_us"]["sum_us"] / 1e3)


NO_WAITS = """
import resource
LOCK_PI, UNLOCK_PI, TRYLOCK_PI, LOCK_PI2 = 6, 7, 8, 13
before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
for lock in (LOCK_PI, TRYLOCK_PI, LOCK_PI2):
    for _ in range(1009):
        if futex(lock | 128, 0) == 0: futex(UNLOCK_PI | 128, 0)
past = struct.pack("qq", 0, 1)
for _ in range(53): futex(WAIT_BITSET, 0, past)
print(resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before)
"""
HELD = """
import threading
LOCK_PI, UNLOCK_PI = 6, 7
turn = threading.Semaphore(0)
def hold():
    for _ in range(23):
        assert futex(LOCK_PI | 128, 0) == 0
        turn.release()
        time.sleep(0.01)
        assert futex(UNLOCK_PI | 128, 0) == 0
        time.sleep(0.01)
holder = threading.Thread(target=hold)
holder.start()
waited = 0
for _ in range(23):
    while not turn.acquire(False): time.sleep(0.0005)
    began = time.monotonic_ns()
    assert futex(LOCK_PI | 128, 0) == 0
    waited += time.monotonic_ns() - began
    assert futex(UNLOCK_PI | 128, 0) == 0
holder.join()
print(waited)
"""


def test_a_futex_call_that_does_not_sleep_is_no_wait(targeted):
    """3,027 locks that nobody else has, and 53 waits whose time is up: no more waits than the thread slept."""
    target = targeted(FUTEX + NO_WAITS)

    locks = target.run()["locks"]

    assert locks["futex_waits"] <= int(target.output) <= 53


def test_waits_for_locks_with_priority_inheritance_are_counted(targeted):
    """23 locks that another thread has for 10 ms each: at least as many waits, and as long."""
    target = targeted(FUTEX + HELD)

    locks = target.run()["locks"]

    assert locks["futex_waits"] >= 23
    assert locks["futex_wait_us"]["sum_us"] >= 0.9 * int(target.output) / 1e3


def test_a_futex_wait_counts_until_the_run_ends(collector, targeted, run):
    target = targeted(f"{FUTEX}\nprint(flush=True)\nfutex(WAIT, 0)")
    collector.start(RunRequest(target=Target(kind="pid", pid=target.process.pid)))
    target.process.stdin.write("\n")
    target.process.stdin.flush()
    target.process.stdout.readline()
    time.sleep(1)
    collector.stop()
    locks = collector.evidence(run).as_json()["locks"]
    assert locks["futex_waits"] == 1
    assert 900_000 < locks["futex_wait_us"]["max_us"] < 3_000_000


@pytest.mark.usefixtures("strangers")
def test_waits_for_locks_of_the_kernel_are_counted(targeted, truth):
    """Each wait for a mutex or an rwsem that another program saw, and none of others."""
    locks = targeted(contend("contender", 1)).run()["locks"]
    truth.send_signal(signal.SIGTERM)
    seen = json.loads(truth.communicate()[0])

    assert (locks["mutex_contentions"], locks["rwsem_waits"]) == (seen["mutexes"], seen["rwsems"])
    assert min(seen.values()) > 0
    assert locks["mutex_wait_us"]["count"] == locks["mutex_contentions"]
    assert locks["rwsem_wait_us"]["count"] == locks["rwsem_waits"]
    assert 0 < locks["mutex_wait_us"]["sum_us"] < 3 * 3e6


def test_the_mean(targeted):
    """The times of all waits that have one."""
    locks = targeted(FUTEX + TIMED).run()["locks"]

    waits = [locks[f"{kind}_wait_us"] for kind in ("futex", "mutex", "rwsem")]
    mean = sum(one["sum_us"] for one in waits) / sum(one["count"] for one in waits)
    assert locks["avg_wait_time_us"] == pytest.approx(mean, abs=0.001)


def test_a_wait_that_was_stopped_is_one_wait(collector, run, targeted):
    """It continues after two stops, as restart_syscall."""
    code = """
began = time.monotonic()
lock.acquire(timeout=1.2)
print((time.monotonic() - began) * 1000, flush=True)
sys.stdin.readline()
"""
    process = targeted(code, "import threading, time\nlock = threading.Lock()\nlock.acquire()").process
    collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
    process.stdin.write("\n")
    process.stdin.flush()
    for _ in range(2):
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGCONT)
    waited_ms = float(process.stdout.readline())
    collector.stop()

    evidence = collector.evidence(run).as_json()
    assert evidence["syscall_counts"]["restart_syscall"] == 2
    assert evidence["locks"]["futex_wait_us"]["max_us"] / 1000 == pytest.approx(waited_ms, rel=0.1)
