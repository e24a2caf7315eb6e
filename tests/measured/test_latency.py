"""Run-queue and block I/O latency: every wait is in the histogram once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.bpf

SPIN = "import time\nend = time.monotonic() + 0.5\nwhile time.monotonic() < end: pass"


def adds_up(distribution):
    counts = [slot["count"] for slot in distribution["histogram"]]
    bounds = [slot["bucket_us"] for slot in distribution["histogram"]]
    return sum(counts) == distribution["count"] and bounds == sorted(bounds) and all(counts)


def test_two_spinners_on_one_cpu_wait_for_each_other(measure):
    """In half a second of two threads on one CPU, one of them waits all the time."""
    pinned = ["taskset", "-c", "0", sys.executable, "-c", SPIN]

    def both():
        for child in [subprocess.Popen(pinned), subprocess.Popen(pinned)]:
            assert child.wait() == 0

    evidence = measure(both)

    runqlat = evidence["runqlat"]
    assert runqlat["sum_us"] >= 0.9 * 500_000
    assert adds_up(runqlat)
    assert runqlat["min_us"] <= runqlat["p50_us"] <= runqlat["p95_us"] <= runqlat["p99_us"] <= runqlat["max_us"]
    assert evidence["offcpu"]["involuntary_ms"] >= 0.8 * 500


def completed_requests():
    """Reads, writes, discards and flushes completed on whole disks, by /proc/diskstats."""
    total = 0
    for line in Path("/proc/diskstats").read_text().splitlines():
        _major, _minor, name, *fields = line.split()
        if Path("/sys/block", name).exists():
            total += sum(int(fields[i]) for i in (0, 4, 11, 15) if i < len(fields))
    return total


def test_each_direct_read_is_a_request(measure, python, tmp_path):
    """101 uncached reads, also by the kernel's own count."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(101 * 4096))
    os.sync()
    code = (
        f"import os, mmap\nfd = os.open({str(path)!r}, os.O_RDONLY | os.O_DIRECT)\nbuffer = mmap.mmap(-1, 4096)\n"
        "for i in range(101): os.preadv(fd, [buffer], i * 4096)"
    )
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        pytest.fail(f"{tmp_path} is on no disk (TMPDIR must be): direct I/O is refused")
    before = completed_requests()

    biolatency = measure(lambda: python(code))["biolatency"]

    assert 101 <= biolatency["count"] <= completed_requests() - before
    assert adds_up(biolatency)
    assert biolatency["min_us"] > 0


def test_commands_are_not_counted_as_requests(measure):
    """A command that is passed through to a disk is counted separately, without its bytes."""
    disks = [path for path in Path("/sys/block").glob("vd*/serial") if path.read_text()]
    if not disks:
        pytest.skip("This kernel has no disk that is asked for its serial number by a command.")

    biolatency = measure(lambda: [disks[0].read_text() for _ in range(53)])["biolatency"]

    assert biolatency["passed_through"] >= 53
    assert biolatency["unmatched_completions"] == 0
    assert "0:0" not in [device["device"] for device in biolatency["by_device"]]
    assert sum(device["reads"] + device["writes"] for device in biolatency["by_device"]) <= biolatency["count"]


def test_an_idle_disk_has_no_latency(measure):
    """Without a request the quantiles are absent, not 0."""
    os.sync()
    biolatency = measure(lambda: None)["biolatency"]

    if biolatency["count"] == 0:
        assert not {"min_us", "max_us", "mean_us", "p50_us", "p95_us", "p99_us"} & set(biolatency)
    assert adds_up(biolatency)
