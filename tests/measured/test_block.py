"""Block requests of a target on its own disk equal the disk's own counters, by operation and device."""

import time

import pytest
from disks import MIB, Disk, during

from chainbench_agent.bpf import libbpf
from chainbench_agent.model.run_request import RunRequest

pytestmark = pytest.mark.bpf

SECTOR = 512


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.close()


def opened(disk, then, size=4 * MIB):
    """Code of a program that has the disk open past the page cache, and a buffer."""
    return f"""
import fcntl, mmap, os, struct, threading
fd = os.open({disk.path!r}, os.O_RDWR | os.O_DIRECT)
buffer = memoryview(mmap.mmap(-1, {size}))
def read(size, at): assert os.preadv(fd, [buffer[:size]], at) == size
def write(size, at): assert os.pwritev(fd, [buffer[:size]], at) == size
{then}
"""


def as_counted(device):
    """The evidence in the disk's own terms."""
    return {
        "reads": device["reads"],
        "read_sectors": device["read_bytes"] // SECTOR,
        "writes": device["writes"],
        "write_sectors": device["write_bytes"] // SECTOR,
    }


SMALL = """
for i in range(101): read(4096, i * 4096)
for i in range(53): write(8192, i * 8192)
for i in range(23): read(65536, i * 65536)
for i in range(7): write(512, i * 512)
"""


@pytest.mark.usefixtures("noise")
def test_every_request_and_every_byte(targeted, disk):
    """124 reads and 60 writes of four sizes: that many requests and bytes, as the disk counted them."""
    one = targeted(opened(disk, SMALL))

    evidence, device, counted = during(disk, one.run)

    assert (device["reads"], device["writes"], device["count"]) == (101 + 23, 53 + 7, 184)
    assert device["read_bytes"] == 101 * 4096 + 23 * 65536
    assert device["write_bytes"] == 53 * 8192 + 7 * 512
    assert device["bytes"] == device["read_bytes"] + device["write_bytes"]
    assert as_counted(device).items() <= counted.items()
    assert 0 < device["min_us"] <= device["p50_us"] <= device["p95_us"] <= device["p99_us"] <= device["max_us"]

    whole = evidence["biolatency"]
    assert sum(d["count"] for d in whole["by_device"]) == whole["count"]
    assert sum(d["bytes"] for d in whole["by_device"]) == whole["bytes"]
    assert sum(d["reads"] for d in whole["by_device"]) == whole["read_latency_us"]["count"]
    assert sum(d["writes"] for d in whole["by_device"]) == whole["write_latency_us"]["count"] == 60
    assert "keys_full" not in evidence["loss"]["causes"]


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize("scheduler", ["none", "mq-deadline"])
def test_large_transfers_are_cut(targeted, disk, scheduler):
    """13 reads and 5 writes of 4 MiB are more requests than that, and every one of them is the target's."""
    disk.use(scheduler)
    one = targeted(
        opened(disk, "for i in range(13): read(4 << 20, i << 20)\nfor i in range(5): write(4 << 20, i << 20)")
    )

    _, device, counted = during(disk, one.run)

    assert device["reads"] > 13
    assert device["writes"] > 5
    assert (device["read_bytes"], device["write_bytes"]) == (13 * 4 * MIB, 5 * 4 * MIB)
    assert as_counted(device).items() <= counted.items()


def test_others_on_the_same_disk(targeted, disk):
    """The disk counts everybody's requests, the evidence only the target's."""
    reading = "print(flush=True)\nwhile True:\n for i in range(64): read(4096, i * 4096)"
    other = targeted(opened(disk, reading))
    other.process.stdin.write("\n")
    other.process.stdin.flush()
    other.process.stdout.readline()

    _, device, counted = during(disk, targeted(opened(disk, SMALL)).run)

    assert (device["reads"], device["writes"]) == (124, 60)
    assert counted["reads"] > 124
    assert counted["writes"] == 60


def test_flushes_and_discards(measure, python, disk):
    """Without a target everything is counted: 19 writes, 11 flushes and 3 discards, each as the disk has it."""
    code = """
for i in range(19): write(4096, i * 4096)
for i in range(11): write(4096, i * 4096); os.fsync(fd)
for i in range(3): fcntl.ioctl(fd, 0x1277, struct.pack("QQ", i << 20, 1 << 20))  # BLKDISCARD
"""
    evidence, device, counted = during(disk, lambda: measure(lambda: python(opened(disk, code))))

    # the disk's own count of writes has, on some kernels, the empty ones that ask for a flush as well
    assert (counted["write_sectors"], counted["flushes"], counted["discards"]) == (30 * 8, 11, 3)
    assert (device["writes"], device["reads"]) == (30, counted["reads"])
    assert device["count"] == device["reads"] + 30 + 11 + 3
    assert device["write_bytes"] == 30 * 4096
    assert (device["discards"], device["discard_bytes"]) == (3, 3 * MIB)
    assert device["bytes"] == device["read_bytes"] + 30 * 4096
    assert evidence["biolatency"]["unmatched_completions"] >= 11


def queue_of(evidence, disk):
    return next(queue for queue in evidence["io"]["queue_depth"] if queue["device"] == disk.name)


def scheduled(targeted, disk):
    """The run of a target that has warmed what it needs, so that its requests are to this disk only."""
    for _ in range(2):
        evidence, device, _ = during(disk, targeted(opened(disk, "for i in range(211): read(4096, i * 4096)")).run)
    assert device["count"] == evidence["biolatency"]["count"] == 211
    return evidence


@pytest.mark.usefixtures("noise")
def test_the_scheduler_holds_requests(targeted, disk):
    """With mq-deadline each of 211 is inserted and issued; with none there is nothing to hold them."""
    held = {"none": 0, "mq-deadline": 211}
    for scheduler, count in held.items():
        if disk.use(scheduler):
            evidence = scheduled(targeted, disk)
            assert evidence["io"]["scheduler_latency_us"]["count"] == count
            assert queue_of(evidence, disk)["scheduler"] == scheduler
            if count:
                assert evidence["io"]["scheduler_latency_us"]["min_us"] > 0


@pytest.mark.usefixtures("noise")
def test_depth_of_one_at_a_time(collector, targeted, disk):
    """A program that waits for each request has at most one in flight; the average is their time over the run's."""
    evidence, device, _ = during(disk, targeted(opened(disk, SMALL)).run)
    queue = queue_of(evidence, disk)
    run_us = (collector._last.at_ns - collector._first.at_ns) / 1000

    assert queue["max"] == 1
    assert queue["mean"] * run_us == pytest.approx(device["count"] * device["mean_us"], abs=2)
    assert evidence["io"]["scope"] == {"queue_depth": "machine"}


def test_depth_of_five_at_once(collector, targeted, stuck):
    """Five writes hang in a frozen disk: the kernel says that five are in flight, and so does the evidence."""
    code = opened(
        stuck,
        """
threads = [threading.Thread(target=write, args=(4096, i << 20)) for i in range(5)]
for t in threads: t.start()
for t in threads: t.join()
""",
    )
    one = targeted(code)
    stuck.freeze()
    seen = {}

    def hang(*_):
        one.process.stdin.write("\n")
        one.process.stdin.flush()
        begun = time.monotonic()
        while stuck.in_flight() < 5:
            assert time.monotonic() < begun + 60
            time.sleep(0.01)
        full = time.monotonic()
        time.sleep(0.5)
        seen.update(depth=stuck.in_flight(), least=5 * (time.monotonic() - full))
        stuck.thaw()
        one.process.wait()
        seen["most"] = 5 * (time.monotonic() - begun)
        return "", ""

    one.process.communicate = hang
    queue = queue_of(one.run(), stuck)
    run_s = (collector._last.at_ns - collector._first.at_ns) / 1e9

    assert queue["max"] == seen["depth"] == 5
    assert seen["least"] <= queue["mean"] * run_s <= seen["most"]


def test_the_disks_are_looked_up_once(collector, monkeypatch):
    """In a sample, though two modules count by disk: both mean the same disks."""
    cells, looked_up = libbpf.read_array, []

    def look_up(fd, size):
        looked_up.append(fd)
        return cells(fd, size)

    monkeypatch.setattr(libbpf, "read_array", look_up)
    collector.start(RunRequest())
    before = len(looked_up)
    collector.stop()

    assert looked_up[before:] == [collector._machine._maps["cb_disks"].fd]
