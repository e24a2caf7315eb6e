"""Reasons of waits: each wait under its own function, for its own thread, in proportion to its time."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from emulation import EMULATED, SCALE
from packages import require

from chainbench_agent.evidence.model import Target
from chainbench_agent.model.run_request import RunRequest

pytestmark = pytest.mark.bpf

# Two ways to wait in one system call without a file, futex(2): PLAIN and PI block in different functions of the kernel.
FUTEX = """
import ctypes, os, threading, time
libc = ctypes.CDLL(None, use_errno=True)
word, held = ctypes.c_uint32(7), ctypes.c_uint32(0)
def plain(seconds):
    timeout = (ctypes.c_long * 2)(int(seconds), int(seconds % 1 * 1e9))
    libc.syscall(202, ctypes.byref(word), 128, 7, timeout)  # FUTEX_WAIT | PRIVATE
def pi(seconds):
    end = time.time() + seconds
    timeout = (ctypes.c_long * 2)(int(end), int(end % 1 * 1e9))
    libc.syscall(202, ctypes.byref(held), 134, 0, timeout)  # FUTEX_LOCK_PI | PRIVATE
def own():
    libc.syscall(202, ctypes.byref(held), 134, 0, None)
    taken.set()
    time.sleep(60)
taken = threading.Event()
threading.Thread(target=own, daemon=True).start()
taken.wait()
def timed(wait, seconds, times):
    took = 0
    for _ in range(times):
        began = time.monotonic()
        wait(seconds)
        took += time.monotonic() - began
    return took * 1000
"""
X86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="The numbers of system calls here are x86-64's.")


def futex_reasons(line):
    """The reasons in the evidence for PLAIN waits and for PI waits, with the functions of any kernel."""
    reasons = [r for category in line["blocked"] for r in category["reasons"] if r["syscall"] == "futex"]
    pi = [r for r in reasons if "rt_mutex" in r["reason"] or "rtmutex" in r["reason"] or "lock_pi" in r["reason"]]
    plain = [r for r in reasons if r not in pi and r["reason"].startswith("futex_")]
    return plain, pi


def bounds(reasons):
    """The least and the largest possible true sum of these reasons: four standard errors around the reported one."""
    ms = sum(r["ms"] for r in reasons)
    error = 4 * sum(r.get("standard_error_ms", 0) for r in reasons)
    return ms - error, ms + error


@X86
def test_two_waits_that_alternate(targeted, tmp_path):
    """Each has its time within the reported error, whatever the rhythm: none is shorter than its timeout, nor
    longer than its thread measured.
    """
    code = f"""{FUTEX}
a = b = 0
for _ in range(1500):
    a += timed(plain, 0.0002, 1)
    b += timed(pi, 0.0005, 1)
open({str(tmp_path / "truth")!r}, "w").write(f"{{a}} {{b}}")
os._exit(0)
"""
    one = targeted(code)
    ledger = one.run_seen()["ledger"]

    longest = [float(ms) for ms in (tmp_path / "truth").read_text().split()]
    for waits, shortest, most in zip(futex_reasons(ledger), (1500 * 0.2, 1500 * 0.5), longest, strict=True):
        assert waits, ledger["blocked"]
        assert all(r["sampled_percent"] > 0 for r in waits)
        least_told, most_told = bounds(waits)
        # the owner of the PI futex and the start of the thread may wait in it too, for microseconds
        assert most_told >= shortest
        assert least_told <= most + 5


@X86
def test_a_rare_long_wait_behind_many_short_ones(targeted):
    """300 ms once, behind 10,000 waits of some 60 us: it is all there, and not more."""
    code = f"{FUTEX}\ntimed(plain, 0.00001, 10000)\ntimed(pi, 0.3, 1)\nos._exit(0)"

    _, pi = futex_reasons(targeted(code).run_seen()["ledger"])

    least, most = bounds(pi)
    assert least <= 350
    assert most >= 299


@X86
def test_the_reasons_of_a_thread_are_its_own(targeted, tmp_path):
    """One thread waits only one way, another only the other way."""
    code = f"""{FUTEX}
threads = [threading.Thread(target=timed, args=(wait, 0.02, 15), name=name) for wait, name in ((plain, "a"), (pi, "b"))]
for thread in threads: thread.start()
open({str(tmp_path / "ids")!r}, "w").write(" ".join(str(thread.native_id) for thread in threads))
for thread in threads: thread.join()
os._exit(0)
"""
    ledger = targeted(code).run_seen()["ledger"]

    plain_tid, pi_tid = map(int, (tmp_path / "ids").read_text().split())
    lines = {line["tid"]: futex_reasons(line) for line in ledger["threads"]}
    assert sum(r["ms"] for r in lines[plain_tid][0]) >= 290
    assert lines[plain_tid][1] == []
    assert sum(r["ms"] for r in lines[pi_tid][1]) >= 290


@X86
def test_the_wait_under_way_at_the_start(collector, run):
    """It has its own function, not that of the waits which come later in the same system call.

    It outlasts the start of a run, which takes seconds under emulation.
    """
    code = f"{FUTEX}\nprint(flush=True)\npi({0.8 * SCALE})\nfor _ in range(20): plain(0.005)\nos._exit(0)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        time.sleep(0.2)
        collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
        process.wait()
        collector.stop()

    plain, pi = futex_reasons(collector.evidence(run).as_json()["ledger"])
    assert 300 <= sum(r["ms"] for r in pi) <= 800 * SCALE
    assert sum(r["ms"] for r in plain) >= 100
    assert all(r["sampled_percent"] == 100 for r in pi)


@X86
def test_a_wait_has_one_name_wherever_it_came_from(collector, run):
    """One thread sleeps through the run, so procfs tells its wait; another's ends in it, so its stack was walked."""
    code = """
import signal, threading
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
def wait(number): signal.sigtimedwait({number}, 60)
threading.Thread(target=wait, args=(signal.SIGUSR1,)).start()
print(flush=True)
wait(signal.SIGUSR2)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        time.sleep(0.2)
        collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
        time.sleep(0.2)
        process.send_signal(signal.SIGUSR2)
        time.sleep(0.2)
        collector.stop()
        process.kill()

    ledger = collector.evidence(run).as_json()["ledger"]
    reasons = [r for c in ledger["blocked"] for r in c["reasons"] if r["syscall"] == "rt_sigtimedwait"]
    assert len(reasons) == 1
    assert reasons[0]["ms"] >= 550
    assert reasons[0]["sampled_percent"] == 100


def by_call_and_file(ledger):
    """(System call, kind of its file) → ms."""
    found = Counter()
    for reason in (reason for category in ledger["blocked"] for reason in category["reasons"]):
        found[reason["syscall"], reason.get("file", "")] += reason["ms"]
    return found


FILES = {
    "pipe": "r, w = os.pipe(); other = lambda: os.write(w, b'x')",
    "socket:unix": "import socket; a, b = socket.socketpair(); r = b.fileno(); other = lambda: a.send(b'x')",
    "socket:inet": (
        "import socket; b = socket.socket(type=socket.SOCK_DGRAM); b.bind(('127.0.0.1', 0)); r = b.fileno(); "
        "other = lambda: b.sendto(b'x', b.getsockname())"
    ),
    "eventfd": "r = os.eventfd(0); other = lambda: os.eventfd_write(r, 1)",
    "tty": "import pty, tty; m, r = os.openpty(); tty.setraw(r); other = lambda: os.write(m, b'x')",
    "timerfd": (
        "import ctypes; c = ctypes.CDLL(None); r = c.timerfd_create(1, 0); "
        "c.timerfd_settime(r, 0, (ctypes.c_long * 4)(0, 0, int(s), int(s % 1 * 1e9)), None); other = lambda: None"
    ),
    "inotify": (
        "import ctypes, tempfile; c = ctypes.CDLL(None); r = c.inotify_init(); d = tempfile.mkdtemp(); "
        "c.inotify_add_watch(r, d.encode(), 0x100); other = lambda: open(d + '/x', 'w')"
    ),
}


@pytest.mark.parametrize("asleep", [False, True], ids=["falls asleep in the run", "asleep since before it"])
@pytest.mark.parametrize("kind", FILES)
def test_the_kind_of_the_file(targeted, collector, run, kind, asleep):
    """A read that waits long: for which kind of file, its key says; also where the wait began before the run."""
    code = (
        f"import os, threading\ns = {1.5 if asleep else 0.3}\n{FILES[kind]}\n{{}}\n"
        "threading.Timer(s, lambda: other()).start()\nos.read(r, 64)\n"
    )
    if not asleep:
        ledger = targeted(code.format("")).run_seen()["ledger"]
    else:
        with subprocess.Popen([sys.executable, "-c", code.format("print(flush=True)")], stdout=subprocess.PIPE) as one:
            one.stdout.readline()
            time.sleep(0.1)
            collector.start(RunRequest(target=Target(kind="pid", pid=one.pid)))
            one.wait()
            collector.stop()
        ledger = collector.evidence(run).as_json()["ledger"]

    assert by_call_and_file(ledger)["read", kind] >= 250


I386 = r"""
#include <stdio.h>
#include <unistd.h>
#include <sys/mman.h>
static long call(long n, long a, long b, long c)
{
	long r;
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "r8", "r9", "r10", "r11", "memory");
	return r;
}
int main(void)
{
	int *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | 0x40, -1, 0), ends[2];
	if (pipe(ends)) return 1;
	low[0] = 0; low[1] = 150000000;
	call(162, (long)low, 0, 0); // nanosleep
	call(168, (long)low, 0, 150); // poll
	alarm(1);
	call(3, ends[0], (long)low, 1); // read
	return 0;
}
"""


@X86
def test_calls_of_32_bit_programs(targeted, tmp_path):
    """They have the names, and the files, of their own numbers: nanosleep is sync's 162, poll swapoff's 168."""
    built = subprocess.run(
        [require("cc"), "-w", "-x", "c", "-", "-o", tmp_path / "i386"],
        input=I386,
        text=True,
        check=False,
        capture_output=True,
    )
    assert built.returncode == 0, built.stderr
    done = subprocess.run([tmp_path / "i386"], check=False)
    if done.returncode != -signal.SIGALRM:
        pytest.skip("This kernel takes no 32-bit calls: CONFIG_IA32_EMULATION is not set.")

    ledger = targeted(f"import subprocess; subprocess.run([{str(tmp_path / 'i386')!r}])").run_seen()["ledger"]

    found = by_call_and_file(ledger)
    least = 0.8 if EMULATED else 0.99  # a call's timeout begins before its thread blocks: some ms in a guest
    assert found["nanosleep", ""] >= least * 150
    assert found["poll", ""] >= least * 150
    assert found["read", "pipe"] >= least * 650
    assert not {"sync", "swapoff", "close"} & {syscall for syscall, _ in found}
