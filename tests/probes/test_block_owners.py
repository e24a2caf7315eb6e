"""The owner of a bio that a kernel thread submits (probes/machines/block.h), and disks that take bios."""

import ctypes

import pytest

from chainbench_agent.catalog import Names
from chainbench_agent.probes import biolatency
from chainbench_agent.probes.biolatency import UNATTRIBUTED

MEMBER, OTHER = 10, 20
META = 1 << 12
ZRAM, DM, SDA = (252, 0), (253, 3), (8, 0)
NAMES = Names(
    {
        "devices": {252 << 20: "zram0", 253 << 20 | 3: "dm-3", 8 << 20: "sda"},
        "disks_below": {253 << 20 | 3: "sda"},
    },
    {},
    {},
    {},
)


@pytest.fixture
def threads(kernel):
    """(a thread of the target, one of another process)"""
    return kernel.task(MEMBER), kernel.task(OTHER)


@pytest.fixture
def running(kernel):
    return kernel.at(1000).tree(MEMBER).begin()


def queue(kernel, bio, by):
    kernel.fire("block_bio_queue_0", bio, current=by)


def request_of(kernel, bio, device=SDA, operation=0):
    """A request of 70 ns."""
    request = kernel.request(4096, bio, operation, device)
    kernel.at(kernel.now_ns + 100).fire("block_rq_issue_0", request)
    kernel.at(kernel.now_ns + 70).fire("block_rq_complete_0", request, 0, 4096)
    if bio:
        kernel.fire("block_bio_complete_0", 0, bio)


def complete(kernel, bio, after_ns):
    kernel.at(kernel.now_ns + after_ns).fire("block_bio_complete_0", 0, bio)


def counted(kernel):
    """Finished requests, and the unattributed by cause."""
    found = kernel.counted()["biolatency"]
    causes = dict(zip(UNATTRIBUTED, found["unattributed_by_cause"], strict=True))
    assert sum(causes.values()) == found["unattributed"]
    return found["requests"], {cause: count for cause, count in causes.items() if count}


def derived(kernel):
    found = biolatency.derive(kernel.counted()["biolatency"], NAMES)
    return {device["device"]: device for device in found["by_device"]}


def noted(kernel):
    """How many words there are in the set-associative table of bios."""
    raw = kernel.raw("cb_bios")
    words = memoryview(raw).cast("Q").tolist()
    return sum(1 for place, word in enumerate(words) if place % 8 < 7 and word)


# ---- why it is nobody's


@pytest.mark.parametrize(
    ("errand", "flags", "cause"),
    [
        ("flush-8:0", 0, "writeback"),
        ("flush-8:0", META, "writeback"),
        ("kblockd", 0, "other_kernel_thread"),
        ("xfs-log/sda1", META, "journal"),
        ("loop3", 0, "below_loop_device"),
        ("loopback", 0, "other_kernel_thread"),
        ("kcryptd/253:0", 0, "other_kernel_thread"),
    ],
)
def test_what_a_worker_is_at(running, errand, flags, cause):
    """The cause is found by the name of its workqueue, or of its work."""
    bio, _ = running.bio_for(running.disk(*SDA, takes_bios=False), operation=flags)
    queue(running, bio, running.worker(30, errand))
    request_of(running, bio)

    assert counted(running) == (0, {cause: 1})


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("jbd2/sda1-8", "journal"),
        ("kswapd0", "reclaim"),
        ("loop7", "below_loop_device"),
        ("md0_raid1", "other_kernel_thread"),
    ],
)
def test_what_another_kernel_thread_is_at(running, name, cause):
    """The cause is found by the name of the thread."""
    bio, _ = running.bio_for(running.disk(*SDA, takes_bios=False))
    queue(running, bio, running.task(30, kthread=True, comm=name))
    request_of(running, bio)

    assert counted(running) == (0, {cause: 1})


def test_no_bio_and_one_that_was_not_seen(running):
    """A flush has no bio; the submission of a bio from before the run was not seen."""
    request_of(running, None, operation=2)
    request_of(running, running.bio())

    assert counted(running) == (0, {"flush": 1, "submission_not_seen": 1})


# ---- in the name of a cgroup


def throttled(kernel, group):
    """A kworker submits what a limit of the group has held back."""
    bio, _ = kernel.bio_for(kernel.disk(*SDA, takes_bios=False))
    kernel.in_the_name_of(bio, group)
    queue(kernel, bio, kernel.worker(30, "kthrotld"))
    request_of(kernel, bio)


def test_a_cgroup_of_only_the_target(running, threads):
    """All its threads are one process's: the request is this process's, and it is said how that is known."""
    member, other = threads
    group = running.group(7)
    running.do_io_as(member, group)
    running.do_io_as(running.task(11, tgid=MEMBER), group)
    running.do_io_as(other, running.group(8))
    running.fire("sys_enter_0", 0, 0, current=member)
    throttled(running, group)

    assert counted(running) == (1, {})
    assert running.counted()["biolatency"]["attributed_by_cgroup"] == 1


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ((), (0, {"shared_cgroup": 1})),
        ((0, 1), (0, {"shared_cgroup": 1})),
        ((1,), (0, {})),
        ((0,), (1, {})),
    ],
    ids=["nobody any more", "both", "others", "the target"],
)
def test_who_is_in_the_cgroup(running, threads, inside, expected):
    """I/O of a cgroup with only other threads is theirs; if both or none are in it, the owner is unknown."""
    group = running.group(7)
    for place in inside:
        running.do_io_as(threads[place], group)
    throttled(running, group)

    assert counted(running) == expected


def test_the_agent_in_the_targets_cgroup(running, threads):
    """It does I/O as well."""
    group = running.group(7)
    for task in (threads[0], running.task(901, tgid=900)):
        running.do_io_as(task, group)
    throttled(running, group)

    assert counted(running) == (0, {"shared_cgroup": 1})


@pytest.mark.parametrize("others", [125, 127])
def test_more_threads_than_are_looked_at(running, threads, others):
    """Beyond 128 steps, of which each set of threads takes two more, the answer would be a guess."""
    group = running.group(7)
    running.do_io_as(threads[0], group)
    first = ctypes.cast(threads[0].address, ctypes.c_void_p)
    for tid in range(1000, 1000 + others):
        running.tell("shim_join_set", running.task(tid, tgid=MEMBER), first)
    throttled(running, group)

    assert counted(running) == ((1, {}) if others == 125 else (0, {"shared_cgroup": 1}))


def test_the_root_cgroup_does_not_show_the_owner(running, threads):
    """Every kernel thread submits in its name."""
    group = running.group()
    running.do_io_as(threads[0], group)
    throttled(running, group)

    assert counted(running) == (0, {"other_kernel_thread": 1})


def test_the_owner_is_remembered_for_a_while(running, threads):
    """10 ms: then the cgroup's threads are looked at once more."""
    group = running.group(7)
    running.do_io_as(threads[0], group)
    throttled(running, group)
    running.do_io_as(threads[1], group)
    throttled(running, group)
    running.at(running.now_ns + 10_000_000)
    throttled(running, group)

    assert counted(running) == (2, {"shared_cgroup": 1})


@pytest.mark.parametrize(("path", "expected"), [((5,), 1), ((5, 6), 1), ((4,), 0)])
def test_a_cgroup_as_the_target(kernel, threads, path, expected):
    """I/O accounted to the cgroup, or to one below it, is the target's, even if no thread is in it any more."""
    kernel.move(threads[1], 4)
    kernel.at(1000).cgroup(5, level=1).begin()
    throttled(kernel, kernel.group(*path))

    assert counted(kernel)[0] == expected


def test_the_same_id_in_another_hierarchy(kernel, threads):
    """It is another cgroup: the I/O belongs to the threads in it, which are others here."""
    kernel.move(threads[1], 4)
    kernel.at(1000).cgroup(5, level=1).begin()
    group = kernel.group(5)
    kernel.library.shim_set_hierarchy(ctypes.c_void_p(group))
    kernel.do_io_as(threads[1], group)
    throttled(kernel, group)

    assert counted(kernel) == (0, {})


def test_a_loop_device_works_as_its_submitter(running, threads):
    """It does so for the disk below, but what it does is counted on the loop device already."""
    group = running.group(7)
    running.do_io_as(threads[0], group)
    bio, _ = running.bio_for(running.disk(*SDA, takes_bios=False))
    running.in_the_name_of(bio, group)
    queue(running, bio, running.worker(30, "loop3"))
    request_of(running, bio)

    assert counted(running) == (0, {"below_loop_device": 1})


# ---- a disk that takes bios


def test_a_bio_from_its_submission_to_its_end(running, threads):
    """One that lies on no other is in the sums as a request is, and is forgotten when it ends."""
    member, other = threads
    zram = running.disk(*ZRAM)
    for by, size, operation in ((member, 4096, 0), (member, 8192, 1), (other, 4096, 0), (member, 1 << 20, 3)):
        bio, _ = running.bio_for(zram, size, operation=operation, sector=64)
        queue(running, bio, by)
        complete(running, bio, 300)

    found = running.counted()["biolatency"]
    assert (found["requests"], found["bytes"], found["latency_ns"].sum) == (3, 4096 + 8192, 900)
    assert (found["discards"], found["discard_bytes"]) == (1, 1 << 20)
    assert biolatency.devices(found)[252 << 20].everybodys == 4
    device = derived(running)["zram0"]
    assert (device["count"], device["reads"], device["writes"], device["discards"]) == (3, 1, 1, 1)
    assert "counted_below" not in device
    assert noted(running) == 0
    assert not any(memoryview(running.raw("cb_requests")).cast("Q")[::8])


def test_on_a_disk_that_is_stacked(running, threads):
    """It is among the disk's own figures, and in the sums once: as the request below."""
    member, _ = threads
    whole, pages = running.bio_for(running.disk(*DM, stacked=True))
    queue(running, whole, member)
    clone, _ = running.bio_for(running.disk(*SDA, takes_bios=False), pages=pages)
    queue(running, clone, member)
    request_of(running, clone)
    complete(running, whole, 30)

    found = running.counted()["biolatency"]
    assert (found["requests"], found["bytes"], found["latency_ns"].sum) == (1, 4096, 70)
    devices = derived(running)
    assert (devices["dm-3"]["count"], devices["dm-3"]["counted_below"], devices["dm-3"]["stacked_on"]) == (1, 1, "sda")
    assert devices["sda"]["count"] == 1
    assert biolatency.derive(found, NAMES)["unfinished"] == 0


@pytest.mark.parametrize("by", [0, 1])
def test_handed_on_by_a_thread_with_the_same_pages(running, threads, by):
    """dm-delay, md's raid1: the clone shares the table of the pages, and is its owner's."""
    whole, pages = running.bio_for(running.disk(*DM, stacked=True))
    queue(running, whole, threads[by])
    clone, _ = running.bio_for(running.disk(*SDA, takes_bios=False), pages=pages)
    queue(running, clone, running.worker(30, "kdelayd"))
    request_of(running, clone)

    assert counted(running) == (1 - by, {})


def test_pages_of_a_bio_that_has_ended(running, threads):
    """The memory is another bio's now."""
    whole, pages = running.bio_for(running.disk(*DM, stacked=True))
    queue(running, whole, threads[0])
    complete(running, whole, 30)
    bio, _ = running.bio_for(running.disk(*SDA, takes_bios=False), pages=pages)
    queue(running, bio, running.worker(30, "flush-8:0"))
    request_of(running, bio)

    assert counted(running) == (0, {"writeback": 1})


def remap(kernel, bio, sector, by, device=253 << 20 | 3):
    kernel.fire("block_bio_remap_0", bio, device, sector, current=by)


def test_handed_on_with_other_pages(running, threads):
    """dm-crypt writes pages of its own; the remap event names the sector of the original bio, or of a part of it."""
    worker = running.worker(30, "dmcrypt_write")
    whole, _ = running.bio_for(running.disk(*DM, stacked=True), 1 << 20, operation=1, sector=800)
    queue(running, whole, threads[0])
    running.go_on(whole, 1000)
    running.fire("block_split_0", whole, current=threads[0])
    for sector in (800, 1000, 1200):
        bio, _ = running.bio_for(running.disk(*SDA, takes_bios=False), operation=1, sector=sector)
        remap(running, bio, sector, worker)
        queue(running, bio, worker)
        request_of(running, bio)

    assert counted(running) == (2, {"other_kernel_thread": 1})


def test_the_same_bio_handed_on(running, threads):
    """NVMe multipath has no list of the disks below: that a bio goes to another disk says that it is stacked.

    Its thread may do so as well; nothing is noted of the bio but what there was.
    """
    head = running.disk(*DM)
    bio, _ = running.bio_for(head)
    queue(running, bio, threads[0])
    for by in (threads[0], running.worker(30, "nvme-wq")):
        remap(running, bio, 0, by)
    request_of(running, bio)

    found = running.counted()["biolatency"]
    assert found["requests"] == 1
    assert derived(running).keys() == {"sda"}
    assert biolatency.devices(found)[253 << 20 | 3].handed_on == 1
    assert biolatency.derive(found, NAMES)["unfinished"] == 0
    assert not any(memoryview(running.raw("cb_requests")).cast("Q")[::8])


def test_a_partition_is_no_stack(running, threads):
    """Its own remap names the partition, which is no disk."""
    bio, _ = running.bio_for(running.disk(*ZRAM))
    remap(running, bio, 0, threads[0], device=252 << 20 | 1)
    queue(running, bio, threads[0])
    complete(running, bio, 30)

    assert counted(running) == (1, {})


def test_unfinished(running, threads):
    """Issued in the run, and not completed: a bio as well as a request."""
    bio, _ = running.bio_for(running.disk(*ZRAM))
    queue(running, bio, threads[0])
    below = running.bio()
    queue(running, below, threads[0])
    running.fire("block_rq_issue_0", running.request(4096, below))

    assert biolatency.derive(running.counted()["biolatency"], NAMES)["unfinished"] == 2


# ---- what nobody saw


@pytest.mark.parametrize(
    ("everybodys", "handed_on", "unmatched", "missing"),
    [
        (None, 0, 0, 714),
        (None, 0, 714, 714),
        (211, 0, 0, 503),
        (711, 0, 0, None),  # within a twentieth
        (611, 0, 68, None),
        (611, 0, 67, 103),
        (211, 1, 0, None),  # it may count parts
        (1009, 0, 0, None),
    ],
)
def test_disks_that_were_not_seen(everybodys, handed_on, unmatched, missing):
    """A disk for which the kernel counted more I/O than the hooks saw is listed, not shown with a zero."""
    names = Names({"devices": {252 << 20: "zram0"}}, {}, {}, {}, disk_ios={252 << 20: 714, 8 << 20: 0})
    found = {} if everybodys is None else {252 << 20: biolatency.Device({}, {}, 0, everybodys, 0, handed_on, 0, 0, ())}

    listed = biolatency.unseen(found, unmatched, names)

    assert [(disk["device"], disk["count"]) for disk in listed] == ([("zram0", missing)] if missing else [])
