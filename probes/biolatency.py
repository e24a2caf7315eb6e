"""Block I/O latency.  Kernel side: biolatency.c"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import iter_unpack
from typing import Any

from chainbench_agent.abi.histogram import QUANTILES, quantile_ns
from chainbench_agent.catalog import Counter, Derived, Distribution, FixedNames, Module, Names, PerDisk, Table

DONE = ("request_done",)

NONE = (1 << 64) - 1
"""The minimum where there is none yet: a not_min_ns of 0, inverted."""

KINDS = ("reads", "writes", "others", "discards", "write_zeroes")
"""The kinds of requests, by their numbers in biolatency.c."""
TRANSFERS = KINDS[:3]
"""The kinds whose bytes go to the disk or come from it."""

UNATTRIBUTED = (
    "other_kernel_thread",
    "writeback",
    "journal",
    "reclaim",
    "shared_cgroup",
    "below_loop_device",
    "flush",
    "submission_not_seen",
)
"""enum cb_unattributed of request.h."""

UNSEEN = "by /proc/diskstats requests ended on this disk that were not seen to begin in the run and to end"


@dataclass(frozen=True, slots=True)
class Device:
    """The finished requests of one disk, summed over CPUs.  `count` and `bytes`: in the order of KINDS.

    `everybodys`: all, also those that are not the target's; `stacked`: those that the disks below it count as well;
    `handed_on`: anybody's that this disk handed on to one of these, and did not see end.
    """

    count: Mapping[str, int]
    bytes: Mapping[str, int]
    ns: int
    everybodys: int
    stacked: int
    handed_on: int
    most: int
    least: int
    slots: Sequence[int]

    def latency(self) -> Iterator[tuple[str, float]]:
        count = sum(self.count.values())
        yield from (("mean_us", self.ns / count / 1e3), ("min_us", self.least / 1e3), ("max_us", self.most / 1e3))
        for q in QUANTILES:
            yield f"p{q * 100:.0f}_us", quantile_ns(self.slots, q, self.least, self.most) / 1e3


def devices(counts: Mapping[str, Any]) -> dict[int, Device]:
    """Number → disk, for all disks that finished requests, whoever submitted these."""
    found = {}
    for key, parts in counts["disks"].items():
        *sums, most, inverted = zip(*iter_unpack("=QQQQQQQQQQQQQQQQ", parts), strict=True)
        *by_kind, ns, everybodys, stacked, handed_on = map(sum, sums)
        if any(by_kind) or everybodys or handed_on:
            slots = memoryview(counts["disk_slots"][key]).cast("Q").tolist()
            count, size = (dict(zip(KINDS, part, strict=True)) for part in (by_kind[:5], by_kind[5:]))
            extremes = max(most), max(inverted) ^ NONE
            number = int.from_bytes(key, "little")
            found[number] = Device(count, size, ns, everybodys, stacked, handed_on, *extremes, slots)
    return found


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    found = devices(counts)
    measured = {number: device for number, device in found.items() if any(device.count.values())}
    by_device = [_device(number, device, names) for number, device in measured.items()]
    return {
        "by_device": sorted(by_device, key=lambda device: -device["count"]),
        "unfinished": counts["issued"] - counts["requeued"] - counts["requests"],
        "unseen_devices": unseen(found, counts["unmatched_completions"], names),
    }


def _device(number: int, device: Device, names: Names) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "device": names.of_device(number),
        "count": sum(device.count.values()),
        "bytes": sum(device.bytes[kind] for kind in TRANSFERS),
        "reads": device.count["reads"],
        "read_bytes": device.bytes["reads"],
        "writes": device.count["writes"],
        "write_bytes": device.bytes["writes"],
        "discards": device.count["discards"],
        "discard_bytes": device.bytes["discards"],
        "write_zeroes": device.count["write_zeroes"],
        "write_zeroes_bytes": device.bytes["write_zeroes"],
    }
    if device.stacked:
        below = names.tables.get("disks_below", {}).get(number, "")
        entry |= {"counted_below": device.stacked} | ({"stacked_on": below} if below else {})
    return entry | {key: round(us, 3) for key, us in device.latency()}


def unseen(found: Mapping[int, Device], unmatched: int, names: Names) -> list[dict[str, Any]]:
    """The disks where the kernel counted clearly more requests than were seen, so that a zero may be wrong.

    The two counts are not read at one moment, so up to a twentieth may be missing; `unmatched` completions are counted
    elsewhere.  A stacked disk may count each part of a bio, so it is not listed if anything was seen on it.
    """
    missing = {}
    below = names.tables.get("disks_below", {})
    for number, finished in names.disk_ios.items():
        disk = found.get(number)
        counts_parts = disk and (disk.handed_on or number in below)
        slack = 0 if not disk else finished if counts_parts else unmatched + finished // 20
        seen = disk.everybodys if disk else 0
        if finished - seen > slack:
            missing[number] = finished - seen
    return [
        {"device": names.of_device(number), "count": count, "reason": UNSEEN}
        for number, count in sorted(missing.items(), key=lambda item: -item[1])
    ]


MODULE = Module(
    name="biolatency",
    question="Did the workload wait for the disk?",
    metrics=(
        Distribution(
            name="latency_ns",
            help="Time of a block request from its issue to the device until its completion.",
            hooks=DONE,
            prometheus="chainbench_biolatency_microseconds",
        ),
        Distribution(name="read_latency_ns", help="The same time, of reads only.", hooks=DONE),
        Distribution(
            name="write_latency_ns",
            help=(
                "The same time, of writes only; flushes, discards and all other requests are only in the metric of all "
                "requests."
            ),
            hooks=DONE,
        ),
        Counter(
            name="requests",
            help="Finished requests, as in count; for each process, those that it submitted.",
            hooks=DONE,
            reported=False,
            per_process=True,
        ),
        Counter(
            name="bytes",
            help=(
                "Bytes that finished requests transferred, by their size at issue. Flushes, discards and requests to "
                "write zeroes transfer no bytes; the ranges of the latter two are in discard_bytes and "
                "write_zeroes_bytes."
            ),
            hooks=DONE,
            per_process=True,
        ),
        Counter(name="read_bytes", help="The part of bytes that reads transferred.", hooks=DONE),
        Counter(name="write_bytes", help="The part of bytes that writes transferred.", hooks=DONE),
        Counter(name="discards", help="Finished discards and secure erasures.", hooks=DONE),
        Counter(name="discard_bytes", help="Bytes that discards freed; none of them is transferred.", hooks=DONE),
        Counter(name="write_zeroes", help="Finished requests to fill a range, without its data.", hooks=DONE),
        Counter(name="write_zeroes_bytes", help="Bytes that write_zeroes filled.", hooks=DONE),
        Derived(
            name="by_device",
            help=(
                "Finished requests, their bytes and latency by whole disk. For a disk that makes no requests (zram, "
                "md, device mapper) these are bios, as they were submitted to it. I/O that is also counted at the "
                "disks below a stacked disk is in counted_below, and not in the sums. I/O of a disk in a file (loop) "
                "is counted on both disks, on the lower one as work of a kernel thread."
            ),
            of=("disks", "disk_slots"),
            label="device",
            label_help="The disk's name as in /dev, or major:minor where it has none any more.",
            value="count",
            prometheus="chainbench_biolatency_device_requests_total",
        ),
        Counter(
            name="attributed_by_cgroup",
            help=(
                "The part of count that kernel threads submitted on behalf of the target's cgroup, or of a cgroup in "
                "which all threads belong to the target: requests that a limit of the cgroup delayed, and writeback if "
                "the file system accounts for the owner of pages."
            ),
            hooks=DONE,
        ),
        Counter(
            name="issued",
            help="Requests issued; count has those that finished.",
            hooks=("request_issued",),
            reported=False,
        ),
        Counter(
            name="requeued",
            help="The part of issued that the device returned unfinished, or that is counted on another disk.",
            hooks=("request_requeued", "request_done"),
            reported=False,
        ),
        Derived(
            name="unfinished",
            help=(
                "Requests issued in the run that the device had not completed when the run ended; they are not in "
                "count."
            ),
            of=("issued", "requeued", "requests"),
        ),
        Derived(
            name="unseen_devices",
            help=(
                "Disks for which the kernel itself counted more reads, writes and discards of all processes than the "
                "agent saw: how many are missing, and the reason. Empty if no I/O is missing."
            ),
            of=("disks", "disk_slots", "unmatched_completions"),
            machine_wide=True,
            label="device",
            label_help="The disk's name as in /dev.",
            value="count",
        ),
        Counter(
            name="unattributed",
            help=(
                "Requests whose owner is not known: a kernel thread submitted them for an unknown process, or they "
                "were submitted before the run. Without a target they are measured like all others."
            ),
            hooks=DONE,
            machine_wide=True,
        ),
        Table(
            name="unattributed_by_cause",
            help=(
                "Unattributed requests by cause: writeback of the page cache; a file system's journal or other "
                "metadata; memory reclaim; a cgroup that the target shares with others, or that is empty now; a loop "
                "device's requests to the disk below it; flushes; any other kernel thread; a submission that was not "
                "seen."
            ),
            hooks=DONE,
            machine_wide=True,
            entries=len(UNATTRIBUTED),
            names=FixedNames(UNATTRIBUTED),
            label="cause",
        ),
        Counter(
            name="unmatched_completions",
            help=(
                "Completions without an issue in the run: requests that were issued before it, and writes with a "
                "flush, which complete a second time in addition to the flush itself (the flush is measured)."
            ),
            hooks=("request_unmatched",),
            machine_wide=True,
        ),
        Counter(
            name="passed_through",
            help=(
                "Finished commands that were passed through to a disk, by tools for SCSI and NVMe, or by the kernel to "
                "ask a drive for its medium. No other figure counts them, like /proc/diskstats."
            ),
            hooks=("request_passed_through",),
            machine_wide=True,
        ),
        PerDisk(
            name="disks",
            help="Finished requests by disk and CPU.",
            hooks=DONE,
            value="struct biolatency_disk",
            when_full="the request is missing in by_device, and counted as lost",
            reported=False,
        ),
        PerDisk(
            name="disk_slots",
            help="Their latencies, as a histogram's slots, by disk.",
            hooks=DONE,
            value="struct biolatency_slots",
            shared=True,
            when_full="as disks",
            reported=False,
        ),
    ),
    derive=derive,
)
