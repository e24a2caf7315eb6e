"""Scheduler, interrupts and throttling agree with the kernel's own accounts."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.bpf


def test_all_time_of_all_cpus_is_accounted_for(measure, python):
    """On a CPU or idle: together that is the length of the run, on every CPU."""
    inner = []

    def half_busy():
        began = time.monotonic()
        python("for _ in range(3_000_000): pass")
        time.sleep(0.5)
        inner.append((time.monotonic() - began) * 1000 * os.cpu_count())

    began = time.monotonic()
    cpu = measure(half_busy)["cpu"]
    outer = (time.monotonic() - began) * 1000 * os.cpu_count()

    # the agent itself, and threads whose switches this kernel does not show, are not counted
    assert 0.85 * inner[0] <= cpu["on_cpu_ms"] + sum(cpu["idle_ms"].values()) <= outer


def test_switches_are_voluntary_or_not(measure, python):
    """Every switch is one of the two, and the kernel, which counts the idle task's as well, has seen more."""
    evidence = measure(lambda: python("import time\nfor _ in range(101): time.sleep(0.001)"))

    cpu = evidence["cpu"]
    assert cpu["context_switches"] == cpu["voluntary_switches"] + cpu["involuntary_switches"]
    assert cpu["voluntary_switches"] >= 101
    check = evidence["cross_check"]["cpu.context_switches"]
    assert check["ebpf"] <= check["kernel"]
    assert cpu["wakeup_latency_us"]["count"] >= 101


@pytest.mark.skipif(os.cpu_count() < 2, reason="with one CPU nothing migrates")
def test_migrations(measure, python):
    """A thread that is sent back and forth between two CPUs 46 times migrates as often."""
    code = "import os\nfor _ in range(23): os.sched_setaffinity(0, {0}); os.sched_setaffinity(0, {1})"

    assert measure(lambda: python(code))["cpu"]["cpu_migrations"] >= 45  # it begins on one of the two


def softirqs():
    lines = Path("/proc/softirqs").read_text().splitlines()[1:]
    return sum(int(number) for line in lines for number in line.split()[1:])


def test_softirqs_and_interrupts(measure, python):
    """As many as /proc/softirqs says; every interrupt is some device's or some vector's."""
    kernel = []

    def sleeps():
        before = softirqs()
        python("import time\nfor _ in range(400): time.sleep(0.001)")
        kernel.append(softirqs() - before)

    cpu = measure(sleeps)["cpu"]

    assert sum(cpu["softirqs"].values()) == pytest.approx(kernel[0], rel=0.15)
    parts = sum(cpu["device_interrupts"].values()) + sum(cpu["vector_interrupts"].values())
    assert cpu["interrupts"] == parts > 0
    assert cpu["vector_interrupts"]["local_timer"] > 0


def throttled(group):
    found = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return int(found["nr_throttled"]), int(found.get("throttled_usec", 0)) * 1000 or int(found.get("throttled_time", 0))


def spin_in(group, seconds):
    code = (
        f"import os, time\nopen({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
        f"end = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    settle(group)


def settle(group):
    """Wait until the period timer, which counts the last throttling after the process has gone, is at rest."""
    periods = None
    while periods != (periods := (group / "cpu.stat").read_text()):
        time.sleep(0.2)  # four periods


def test_throttling(measure, limited):
    """A spinner with a 25th of a CPU is throttled exactly as often as its cgroup says, and not for what was before."""
    spin_in(limited, 0.3)
    before = throttled(limited)

    cpu = measure(lambda: spin_in(limited, 0.7))["cpu"]

    after = throttled(limited)
    assert cpu["throttle_events"] == after[0] - before[0] > 5
    assert cpu["throttled_ms"] == pytest.approx((after[1] - before[1]) / 1e6, abs=0.001)


def test_interrupts_have_their_devices_names(measure, tmp_path):
    """A device is named as in /proc/interrupts."""
    dd = ["dd", "if=/dev/zero", f"of={tmp_path}/file", "bs=64k", "count=9", "conv=fsync", "status=none"]
    cpu = measure(lambda: subprocess.run(dd, check=True))["cpu"]

    known = Path("/proc/interrupts").read_text()
    for device in cpu["device_interrupts"]:
        number, name = re.fullmatch(r"(\d+):(.+)", device).groups()
        assert re.search(rf"^\s*{number}:.*{re.escape(name)}$", known, re.MULTILINE), device
