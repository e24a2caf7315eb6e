"""Block I/O latency.  Kernel side: biolatency.c"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import iter_unpack
from typing import Any

from chainbench_agent.histogram import QUANTILES, quantile_ns
from chainbench_agent.spec import Counter, Derived, Distribution, Module, Names, PerDisk

DONE = ("request_done",)

NONE = (1 << 64) - 1
"""not_min_ns of nothing, inverted."""

READ, WRITE = 0, 1
"""CB_REQ_OP_* of compat.h, and what is counted first and second by disk; third come all others."""


@dataclass(frozen=True, slots=True)
class Device:
    """The finished requests of one disk, summed over CPUs.  `count` and `bytes`: of reads, writes, others."""

    count: tuple[int, ...]
    bytes: tuple[int, ...]
    ns: int
    most: int
    least: int
    slots: Sequence[int]

    def latency(self) -> Iterator[tuple[str, float]]:
        count = sum(self.count)
        yield from (("mean_us", self.ns / count / 1e3), ("min_us", self.least / 1e3), ("max_us", self.most / 1e3))
        for q in QUANTILES:
            yield f"p{q * 100:.0f}_us", quantile_ns(self.slots, q, self.least, self.most) / 1e3


def devices(counts: Mapping[str, Any]) -> dict[int, Device]:
    """Those with finished requests: one that has only issued some is none."""
    found = {}
    for key, parts in counts["disks"].items():
        *sums, most, inverted = zip(*iter_unpack("=QQQQQQQQQ", parts), strict=True)
        *by_kind, ns = map(sum, sums)
        if any(by_kind):
            slots = memoryview(counts["disk_slots"][key]).cast("Q").tolist()
            least = max(inverted) ^ NONE
            found[int.from_bytes(key, "little")] = Device(
                tuple(by_kind[:3]), tuple(by_kind[3:]), ns, max(most), least, slots
            )
    return found


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    by_device = [
        {
            "device": names.of_device(number),
            "count": sum(device.count),
            "bytes": sum(device.bytes),
            "reads": device.count[READ],
            "read_bytes": device.bytes[READ],
            "writes": device.count[WRITE],
            "write_bytes": device.bytes[WRITE],
        }
        | {key: round(us, 3) for key, us in device.latency()}
        for number, device in devices(counts).items()
    ]
    return {"by_device": sorted(by_device, key=lambda device: -device["count"])}


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
        Distribution(name="read_latency_ns", help="The same, of reads.", hooks=DONE),
        Distribution(
            name="write_latency_ns",
            help="The same, of writes; flushes, discards and all others are in the whole only.",
            hooks=DONE,
        ),
        Counter(
            name="requests",
            help="Finished requests, as count has them; of each process, those that it submitted.",
            hooks=DONE,
            reported=False,
            per_process=True,
        ),
        Counter(
            name="bytes",
            help="Bytes of finished requests, as they were issued: a flush has none, a discard has what it frees.",
            hooks=DONE,
            per_process=True,
        ),
        Derived(
            name="by_device",
            help=(
                "Finished requests, their bytes and latency by whole disk. What lies on another device shows on both, "
                "below as the work of a kernel thread."
            ),
            of=("disks", "disk_slots"),
            label="device",
            label_help="The disk's name as in /dev, or major:minor where it has none any more.",
            value="count",
            prometheus="chainbench_biolatency_device_requests_total",
        ),
        Counter(
            name="unattributed",
            help=(
                "Requests submitted by a kernel thread on behalf of somebody unknown: writeback, the journal, flushes. "
                "Without a target these are measured like all others."
            ),
            hooks=DONE,
            machine_wide=True,
        ),
        Counter(
            name="unmatched_completions",
            help=(
                "Completions without an issue in the run: requests issued before it, and writes that ask for "
                "a flush, which complete once more beside the flush itself (the flush is measured)."
            ),
            hooks=("request_unmatched",),
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
