"""Blocked time has its length, its system call and its function; at the edges of a run it is cut."""

import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.bpf

# rt_sigtimedwait(2): a way to sleep that nothing else on a machine uses.
SLEEPER = """
import signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print(flush=True)
signal.sigtimedwait({signal.SIGUSR1}, float(sys.argv[1]))
print(time.monotonic(), flush=True)
"""


def sleeper(seconds):
    """A process that is about to sleep when this returns; after `seconds` it prints the time, and ends."""
    child = subprocess.Popen([sys.executable, "-c", SLEEPER, str(seconds)], stdout=subprocess.PIPE)
    child.stdout.readline()
    return child


def wake(child):
    """The time (CLOCK_MONOTONIC, s) when the sleep was over."""
    with child:
        return float(child.stdout.readline())


def slept_ms(evidence):
    reasons = evidence["offcpu"]["top_reasons"]
    return sum(reason["ms"] for reason in reasons if reason["syscall"] == "rt_sigtimedwait")


def test_a_sleep_within_the_run(measure):
    """Half a second asleep is 500 ms, in the function that sleeps."""
    evidence = measure(lambda: wake(sleeper(0.5)))

    assert slept_ms(evidence) == pytest.approx(500, abs=25)
    (reason,) = [r for r in evidence["offcpu"]["top_reasons"] if r["syscall"] == "rt_sigtimedwait"]
    assert reason["reason"] == "do_sigtimedwait"
    assert reason["sampled_percent"] == 100


def test_a_sleep_that_began_before_the_run(measure):
    """Only the part within the run counts."""
    child = sleeper(0.9)
    time.sleep(0.3)
    left = []

    def rest_of_it():
        began = time.monotonic()
        left.append((wake(child) - began) * 1000)

    asked = time.monotonic()
    evidence = measure(rest_of_it)
    whole = (time.monotonic() - asked) * 1000

    # no less than what was left when the run was on, and no more than there was since it was asked for
    assert left[0] - 25 <= slept_ms(evidence) <= whole


def test_a_sleep_that_outlasts_the_run(measure):
    """A thread that is still asleep at the end was blocked until then."""
    children, inner = [], []

    def begin():
        children.append(sleeper(30))
        began = time.monotonic()
        time.sleep(0.4)
        inner.append((time.monotonic() - began) * 1000)

    evidence = measure(begin)
    for child in children:
        with child:
            child.kill()

    assert slept_ms(evidence) == pytest.approx(inner[0], abs=40)


def test_the_parts_are_the_whole(measure, python):
    """Blocked and runnable are all of it, and so are voluntary and involuntary."""
    offcpu = measure(lambda: python("import time; time.sleep(0.1)"))["offcpu"]

    assert offcpu["total_ms"] == pytest.approx(offcpu["blocked_ms"] + offcpu["runnable_ms"])
    assert offcpu["total_ms"] == pytest.approx(offcpu["voluntary_ms"] + offcpu["involuntary_ms"])


PIPE = """
import os, threading
reader, writer = os.pipe()
threading.Timer(0.3, os.write, (writer, b"x")).start()
os.read(reader, 1)
"""


@pytest.mark.parametrize(
    ("code", "syscall", "functions"),
    [
        ("import threading\nthreading.Event().wait(0.3)", "futex", ("futex_",)),
        ("import select\nselect.poll().poll(300)", "poll", ("poll_schedule_timeout", "do_sys_poll", "do_poll")),
        (PIPE, "read", ("pipe_read", "anon_pipe_read")),
        ("import subprocess\nsubprocess.run(['sleep', '0.3'])", "wait4", ("kernel_wait4", "do_wait")),
    ],
    ids=["futex", "poll", "pipe", "child"],
)
def test_the_blocking_function_is_named(measure, python, code, syscall, functions):
    """Each way to wait 0.3 s appears under its system call and the function that called the scheduler."""
    reasons = measure(lambda: python(code))["offcpu"]["top_reasons"]

    matching = [r for r in reasons if r["syscall"] == syscall and r["reason"].startswith(functions)]
    assert sum(r["ms"] for r in matching) >= 250, reasons
