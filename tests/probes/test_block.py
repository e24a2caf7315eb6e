"""The life of a block request (probes/machines/block.h), and what biolatency.c and io.c make of it.

A request is of who submitted its bio, not of who issues it.
"""

import ctypes
import struct

import pytest
from user_space import AGENT, INTERRUPTIBLE, UserSpace, fused

from chainbench_agent.catalog import Names
from chainbench_agent.kernel.reading import disk_records
from chainbench_agent.probes import biolatency, io

MEMBER = 10
READ, WRITE, FLUSH, DISCARD = 0, 1, 2, 3
SYNC = 1 << 11  # a flag next to the operation
MS = 1_000_000
REQUEST = struct.Struct("=Q24xII24x")  # of struct cb_request: of, claims, elsewhere


@pytest.fixture
def running(kernel):
    return kernel.at(1000).begin()


def times(histogram):
    return histogram.sum, sum(histogram.slots)


def issue(kernel, request, at_ns):
    kernel.at(at_ns).fire("block_rq_issue_0", request)


def complete(kernel, request, at_ns, size=1 << 31):
    kernel.at(at_ns).fire("block_rq_complete_0", request, 0, size)


def by_device(kernel, devices=None):
    names = Names({"devices": devices or {8 << 20: "sda", 7 << 20 | 3: "loop3"}}, {}, {}, {})
    return {
        device.pop("device"): device for device in biolatency.derive(kernel.counted()["biolatency"], names)["by_device"]
    }


def depths(kernel, run_ns):
    names = Names({"devices": {8 << 20: "sda"}, "schedulers": {8 << 20: "none"}}, {}, {}, {}, run_ns)
    found = io.derive(kernel.counted()["io"], names)["queue_depth"]
    return {queue["device"]: (queue["mean"], queue["max"]) for queue in found}


def forgotten(kernel):
    """No request has a record, every record may be claimed again, and none is at another's place."""
    raw = kernel.raw("cb_requests")
    records = [raw[i : i + REQUEST.size] for i in range(0, len(raw), REQUEST.size)]
    return not any(any(REQUEST.unpack(record)) for record in filter(any, records))


def test_a_request(running):
    """From its issue to its completion; then it is forgotten."""
    request = running.request(4096)

    issue(running, request, 2000)
    complete(running, request, 2700)

    biolatency = running.counted()["biolatency"]
    latency = biolatency["latency_ns"]
    assert (latency.sum, sum(latency.slots), latency.min, latency.max) == (700, 1, 700, 700)
    assert biolatency["bytes"] == 4096
    assert forgotten(running)


def test_a_request_in_parts(running):
    """Only the last part completes it, and its bytes are those of the issue, though the kernel counts them down."""
    request = running.request(8192)

    issue(running, request, 2000)
    complete(running, request, 2100, 4096)
    running.library.shim_set_bytes(ctypes.c_void_p(request), 4096)
    complete(running, request, 2300, 4096)

    biolatency = running.counted()["biolatency"]
    assert times(biolatency["latency_ns"]) == (300, 1)
    assert biolatency["bytes"] == 8192
    assert depths(running, 1300) == {"sda": (round(300 / 1300, 6), 1)}


def test_a_request_from_before_the_run(running):
    """Its issue was not seen: counted as such, and no latency, no bytes, no depth."""
    complete(running, running.request(512), 2000)

    counted = running.counted()
    assert counted["biolatency"]["unmatched_completions"] == 1
    assert times(counted["biolatency"]["latency_ns"]) == (0, 0)
    assert depths(running, 1000) == by_device(running) == {}


def test_a_request_that_was_only_inserted(running):
    """Completed without an issue: the same."""
    request = running.request(512)
    running.fire("block_rq_insert_0", request)
    complete(running, request, 2000)

    assert running.counted()["biolatency"]["unmatched_completions"] == 1
    assert forgotten(running)


def test_many_requests_at_once(running):
    """Many have the same place, in the user space of this test: each has its record all the same, and gives it back.

    With a thousand of them one in ten times all four places of one are taken: they are small, and lie close together.
    """
    requests = [running.request(4096) for _ in range(101)]
    for request in requests:
        issue(running, request, 2000)
    for request in (*requests[::2], *requests[1::2]):
        complete(running, request, 2700)

    assert times(running.counted()["biolatency"]["latency_ns"]) == (101 * 700, 101)
    assert depths(running, 1700) == {"sda": (round(101 * 700 / 1700, 6), 101)}
    assert running.lost() == {}
    assert forgotten(running)


def test_requests_without_end(running):
    """Each request that finds no room is counted as lost once."""
    running.fill("cb_requests", 0xFF)

    issue(running, running.request(512), 1000)
    running.fire("block_rq_insert_0", running.request(512))

    assert running.lost() == {"keys_full": 2}


def test_disks_without_end(running):
    """A disk that finds no room is counted as lost, by each that asks for it; the whole is right all the same."""
    for minor in range(67):
        request = running.request(4096, device=(8, minor))
        issue(running, request, 2000)
        complete(running, request, 2700)

    assert times(running.counted()["biolatency"]["latency_ns"]) == (67 * 700, 67)
    assert running.lost() == {"keys_full": 3 * 3}
    assert len(by_device(running)) == len(depths(running, 1000)) == 64
    assert {device["count"] for device in by_device(running).values()} == {1}


def test_a_disk_that_another_cpu_takes(running):
    """The index has a taker before the array says so: the disk gets the next one."""
    issue(running, running.request(4096), 2000)
    (index,) = disk_records.numbers(running.raw("cb_disks"))
    running.end().begin()
    for what, kind, value in (
        ("used", ctypes.c_uint8, 1),
        ("keys", ctypes.c_int, index),
        ("cells", ctypes.c_uint32, 7),
    ):
        running.set(f"cb_disk_takers_{what}", kind, value)

    issue(running, running.request(4096), 2000)

    assert disk_records.numbers(running.raw("cb_disks")) == {(index + 1) % 64: 8 << 20}


def test_disks_of_another_run(running):
    """They are forgotten, and what was counted of them."""
    request = running.request(4096)
    issue(running, request, 2000)
    complete(running, request, 2700)
    assert by_device(running)

    running.end().begin()

    assert by_device(running) == depths(running, 1000) == {}


def test_by_operation(running):
    """Reads and writes, with whatever flags; a flush and a discard are in the whole only."""
    for operation, size, ns in (
        (READ, 512, 10),
        (WRITE | SYNC, 1024, 200),
        (FLUSH, 0, 3000),
        (DISCARD, 1 << 20, 40000),
    ):
        request = running.request(size, operation=operation)
        issue(running, request, 2000)
        complete(running, request, 2000 + ns)

    counted = running.counted()["biolatency"]
    assert times(counted["latency_ns"]) == (43210, 4)
    assert times(counted["read_latency_ns"]) == (10, 1)
    assert times(counted["write_latency_ns"]) == (200, 1)
    assert (counted["bytes"], counted["read_bytes"], counted["write_bytes"]) == (512 + 1024, 512, 1024)
    assert (counted["discards"], counted["discard_bytes"]) == (1, 1 << 20)
    (sda,) = by_device(running).values()
    assert (sda["count"], sda["reads"], sda["read_bytes"], sda["writes"], sda["write_bytes"]) == (4, 1, 512, 1, 1024)


def test_by_device(running):
    """Each has its own requests, whichever CPU completes them; one that sysfs does not know is called by its number."""
    for minor, major, ns, cpu in ((0, 8, 1000, 0), (0, 8, 3000, 1), (3, 7, 500, 0), (9, 259, 700, 3)):
        request = running.request(4096, device=(major, minor))
        issue(running, request, 2000)
        running.at(2000 + ns).fire("block_rq_complete_0", request, 0, 4096, cpu=cpu)

    found = by_device(running)
    assert {name: (d["count"], d["bytes"], d["min_us"], d["mean_us"], d["max_us"]) for name, d in found.items()} == {
        "sda": (2, 8192, 1.0, 2.0, 3.0),
        "loop3": (1, 4096, 0.5, 0.5, 0.5),
        "259:9": (1, 4096, 0.7, 0.7, 0.7),
    }
    assert next(iter(found)) == "sda"
    assert found["sda"]["p50_us"] == pytest.approx(1.0, rel=0.031)
    assert found["sda"]["p95_us"] == found["sda"]["p99_us"] == pytest.approx(3.0, rel=0.031)


@pytest.mark.parametrize(("has_rq_disk", "device"), [(True, "sda"), (False, "loop3")])
def test_the_disk_of_a_request(compile_unit, has_rq_disk, device):
    """Its own before 5.17, later its queue's."""
    text = fused(has_field=lambda name: has_rq_disk or name != "request.rq_disk").text
    kernel = UserSpace(ctypes.CDLL(str(compile_unit(text, f"disk_of_{device}"))))
    kernel.at(1000).begin()
    request = kernel.request(512, device=(7, 3))
    kernel.library.shim_set_rq_disk(ctypes.c_void_p(request), 8, 0)
    issue(kernel, request, 2000)
    complete(kernel, request, 2100)

    assert list(by_device(kernel)) == [device]


# ---- the I/O scheduler


def scheduler_latency(kernel):
    return times(kernel.counted()["io"]["scheduler_latency_ns"])


def test_held_by_the_scheduler(running):
    """From its insertion to its issue."""
    request = running.request(4096)
    running.at(2000).fire("block_rq_insert_0", request)
    issue(running, request, 2030)
    complete(running, request, 2100)

    assert scheduler_latency(running) == (30, 1)
    assert times(running.counted()["biolatency"]["latency_ns"]) == (70, 1)


def test_not_held(running):
    """Issued at once: there is no such time, not a zero."""
    request = running.request(4096)
    issue(running, request, 2030)
    complete(running, request, 2100)

    assert scheduler_latency(running) == (0, 0)


def test_merged_into_another(running):
    """It never ends; the kernel uses its memory for another request, which was not held."""
    request = running.request(4096)
    running.at(2000).fire("block_rq_insert_0", request)
    running.fire("block_rq_merge_0", request)
    issue(running, request, 5000)
    complete(running, request, 5100)

    assert scheduler_latency(running) == (0, 0)
    assert times(running.counted()["biolatency"]["latency_ns"]) == (100, 1)


def test_given_back_before_its_issue(running):
    """The device was busy: it is still held."""
    request = running.request(4096)
    running.at(2000).fire("block_rq_insert_0", request)
    running.at(2010).fire("block_rq_requeue_0", request)
    issue(running, request, 2050)

    assert scheduler_latency(running) == (50, 1)


# ---- in flight


def test_depth_over_time(running):
    """Two at once for a quarter of the run, one for another quarter: 0.75; on several CPUs, and one goes on."""
    first, second = running.request(4096), running.request(4096)
    running.at(1000 + 25 * MS).fire("block_rq_issue_0", first, cpu=0)
    running.at(1000 + 50 * MS).fire("block_rq_issue_0", second, cpu=1)
    running.at(1000 + 75 * MS).fire("block_rq_complete_0", first, 0, 4096, cpu=2)

    assert depths(running, 100 * MS) == {"sda": (0.25 + 0.25 * 2 + 0.25, 2)}


def test_depth_of_others(kernel, threads):
    """Everybody's: they wait for the same device."""
    kernel.at(1000).tree(MEMBER).begin()
    bio = kernel.bio()
    kernel.fire("block_bio_queue_0", bio, current=threads[1])
    request = kernel.request(4096, bio)
    issue(kernel, request, 1000)
    complete(kernel, request, 1500)

    assert depths(kernel, 1000) == {"sda": (0.5, 1)}
    assert times(kernel.counted()["biolatency"]["latency_ns"]) == (0, 0)


def test_depth_after_a_requeue(running):
    """It is not in flight until it is issued again."""
    request = running.request(4096)
    issue(running, request, 1000)
    running.at(1100).fire("block_rq_requeue_0", request)
    issue(running, request, 1500)
    complete(running, request, 1600)

    assert depths(running, 1000) == {"sda": (0.2, 1)}


def test_an_end_that_was_not_seen(running):
    """The same request is issued again: there is one of it."""
    request = running.request(4096)
    issue(running, request, 1000)
    issue(running, request, 1500)
    complete(running, request, 1600)

    assert depths(running, 1000) == {"sda": (0.6, 1)}
    assert times(running.counted()["biolatency"]["latency_ns"]) == (100, 1)
    assert running.lost() == {"unseen_ends": 1}


def test_depth_of_no_time(running):
    """A run without a length has no mean."""
    issue(running, running.request(4096), 1000)

    assert depths(running, 0) == {}


# ---- whose it is


@pytest.fixture
def threads(kernel):
    """(a thread of the target, one of another process, a kernel thread)"""
    return kernel.task(MEMBER), kernel.task(20), kernel.task(30, kthread=True)


def transfer(kernel, bio, submitter, issuer):
    """A request of 70 ns, completed by whoever comes along."""
    request = kernel.request(4096, bio)
    if submitter:
        kernel.fire("block_bio_queue_0", bio, current=submitter)
    kernel.at(kernel.now_ns + 100).fire("block_rq_issue_0", request, current=issuer)
    kernel.at(kernel.now_ns + 70).fire("block_rq_complete_0", request, 0, 4096)


def found(kernel):
    biolatency = kernel.counted()["biolatency"]
    return biolatency["latency_ns"].sum, biolatency["unattributed"], biolatency["unmatched_completions"]


@pytest.mark.parametrize(
    ("submitter", "expected"),
    [(0, (70, 0, 0)), (1, (0, 0, 0)), (2, (0, 1, 0)), (None, (0, 1, 0))],
    ids=["target", "other", "kernel thread", "forgotten bio"],
)
@pytest.mark.parametrize("issuer", [0, 1, 2])
def test_the_owner(kernel, threads, submitter, issuer, expected):
    """Somebody else's is neither measured nor unattributed."""
    kernel.at(1000).tree(MEMBER).begin()

    transfer(kernel, kernel.bio(), None if submitter is None else threads[submitter], threads[issuer])

    assert found(kernel) == expected
    assert forgotten(kernel)


@pytest.mark.parametrize("submitter", [0, 1, 2, None])
def test_the_whole_machine(kernel, threads, submitter):
    """Without a target everything is measured, whoever submitted it."""
    kernel.at(1000).begin()

    transfer(kernel, kernel.bio(), None if submitter is None else threads[submitter], threads[1])

    assert found(kernel) == (70, 0, 0)


def test_the_agents_own(kernel, threads):
    """The agent's own I/O counts for no process, also where the whole machine is measured."""
    kernel.at(1000).begin()

    transfer(kernel, kernel.bio(), kernel.task(AGENT + 50, tgid=AGENT), threads[1])

    assert found(kernel) == (0, 0, 0)


@pytest.mark.parametrize("targeted", [False, True])
def test_requests_of_each_process(kernel, threads, targeted):
    """Requests count for the process that submitted them, and only in the sums where it has no record.

    Without a target, a kernel thread has one, too.
    """
    member, other, kthread = threads
    kernel.at(1000)
    (kernel.tree(MEMBER) if targeted else kernel).begin()
    for submitter in (member, member, other, kthread, None):
        transfer(kernel, kernel.bio(), submitter, threads[1])

    done = {pid: tuple(process.figures["biolatency"].values()) for pid, process in kernel.processes().items()}
    expected = (
        {member.pid: (2, 8192)} if targeted else {member.pid: (2, 8192), other.pid: (1, 4096), kthread.pid: (1, 4096)}
    )
    assert {pid: figures for pid, figures in done.items() if any(figures)} == expected
    biolatency = kernel.counted()["biolatency"]
    assert (biolatency["requests"], biolatency["bytes"]) == ((2, 8192) if targeted else (5, 5 * 4096))


def test_on_older_kernels(kernel, threads):
    """Before 5.11 the queue came first."""
    bio = kernel.bio()
    request = kernel.request(4096, bio)
    kernel.at(1000).tree(MEMBER).begin()

    kernel.fire("block_bio_queue_1", 0, bio, current=threads[0])
    kernel.fire("block_rq_issue_1", 0, request)
    kernel.at(1030).fire("block_rq_complete_0", request, 0, 4096)

    assert found(kernel) == (30, 0, 0)


@pytest.mark.parametrize(
    ("submitter", "expected"), [(0, (140, 0, 0)), (1, (0, 0, 0)), (2, (0, 2, 0)), (None, (0, 2, 0))]
)
@pytest.mark.parametrize("hook", ["block_split_0", "block_split_1"])
def test_a_bio_that_is_cut(kernel, threads, submitter, expected, hook):
    """Its parts are the owner's too, whoever cuts it, and parts of parts."""
    kernel.at(1000).tree(MEMBER).begin()
    bio = kernel.bio()
    part = kernel.cut_off(bio)
    smaller = kernel.cut_off(part)
    if submitter is not None:
        kernel.fire("block_bio_queue_0", bio, current=threads[submitter])
    for cut in (part, smaller):
        kernel.fire(hook, *([0] if hook.endswith("1") else []), cut, current=threads[1])

    transfer(kernel, part, None, threads[2])
    transfer(kernel, smaller, None, threads[2])

    assert found(kernel) == expected


def test_a_bio_is_used_again(kernel, threads):
    """The last one who submitted it is its owner."""
    bio = kernel.bio()
    kernel.at(1000).tree(MEMBER).begin()
    for submitter in (0, 1, 2, 0):
        transfer(kernel, bio, threads[submitter], threads[1])

    assert found(kernel) == (140, 1, 0)


def test_a_bio_of_another_run(kernel, threads):
    """A submitter that was noted in an earlier run is ignored, though nobody has emptied the map."""
    bio = kernel.bio()
    for _ in range(2):
        kernel.at(1000).tree(MEMBER).begin()
        transfer(kernel, bio, None, threads[1])
        assert found(kernel) == (0, 1, 0)
        kernel.fire("block_bio_queue_0", bio, current=threads[0])
        kernel.end()


def test_bios_without_end(kernel, threads):
    """The oldest make room: the last ones are known, and nothing is lost on the way."""
    kernel.at(1000).tree(MEMBER).begin()
    bios = [kernel.bio() for _ in range(7 * 2048 + 1009)]
    for bio in bios:
        kernel.fire("block_bio_queue_0", bio, current=threads[0])

    for bio in bios[-23:]:
        transfer(kernel, bio, None, threads[1])

    assert found(kernel) == (23 * 70, 0, 0)
    assert kernel.lost() == {}


def test_a_bio_that_nobody_may_note(kernel, threads):
    """Other CPUs are at its set for so long that it is given up: counted as lost."""
    kernel.at(1000).tree(MEMBER).begin()
    kernel.fill("cb_bios", 0xFF)

    transfer(kernel, kernel.bio(), threads[0], threads[1])

    assert found(kernel) == (0, 1, 0)
    assert kernel.lost() == {"keys_full": 1}


def test_a_request_without_a_bio(kernel):
    """A flush belongs to nobody."""
    kernel.at(1000).tree(MEMBER).begin()
    transfer(kernel, None, None, kernel.idle)

    assert found(kernel) == (0, 1, 0)


def test_issued_again(kernel, threads):
    """It stays the owner's, and is measured from its last issue."""
    bio = kernel.bio()
    request = kernel.request(4096, bio)
    kernel.at(1000).tree(MEMBER).begin()
    kernel.fire("block_bio_queue_0", bio, current=threads[0])
    kernel.at(1100).fire("block_rq_issue_0", request, current=threads[2])
    kernel.at(1200).fire("block_rq_requeue_0", request, current=threads[2])
    kernel.at(1300).fire("block_rq_issue_0", request, current=threads[2])
    kernel.at(1350).fire("block_rq_complete_0", request, 0, 4096)

    assert found(kernel) == (50, 0, 0)


def test_the_submitter_of_a_cgroup(kernel, threads):
    """A request belongs to the target if its submitter is in the cgroup when it submits."""
    ours, other, _ = threads
    kernel.move(ours, 5)
    kernel.move(other, 6)
    kernel.at(1000).cgroup(5, level=1).begin()
    for submitter in (ours, other):
        transfer(kernel, kernel.bio(), submitter, other)

    kernel.switch(kernel.idle, ours)
    kernel.switch(ours, kernel.idle, INTERRUPTIBLE)
    kernel.move(ours, 6)
    transfer(kernel, kernel.bio(), ours, other)

    assert found(kernel) == (70, 0, 0)
