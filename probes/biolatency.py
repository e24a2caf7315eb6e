"""Block I/O latency.  Kernel side: biolatency.c"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from struct import unpack
from typing import Any

from chainbench_agent.histogram import QUANTILES, quantile_ns
from chainbench_agent.spec import HISTOGRAM_SLOTS, Counter, Derived, Distribution, Keyed, Module, Names

DONE = ("request_done",)

READ, WRITE = 0, 1
"""CB_REQ_OP_* of compat.h."""


@dataclass(slots=True)
class Device:
    """The finished requests of one device, summed over CPUs and operations."""

    count: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    bytes: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    ns: int = 0
    extremes: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=lambda: [0] * HISTOGRAM_SLOTS)

    def latency(self) -> Iterator[tuple[str, float]]:
        """Quantiles only while every request found its slot."""
        count, least, most = sum(self.count.values()), min(self.extremes), max(self.extremes)
        yield from (("mean_us", self.ns / count / 1e3), ("min_us", least / 1e3), ("max_us", most / 1e3))
        if sum(self.slots) == count:
            yield from ((f"p{q * 100:.0f}_us", quantile_ns(self.slots, q, least, most) / 1e3) for q in QUANTILES)


def devices(counts: Mapping[str, Any]) -> dict[int, Device]:
    found: dict[int, Device] = defaultdict(Device)
    for key, value in counts["device_sums"].items():
        number, operation, _cpu = unpack("=IHH", key)
        count, size, ns, least, most = unpack("=QQQQQ", value)
        device = found[number]
        device.count[operation] += count
        device.bytes[operation] += size
        device.ns += ns
        device.extremes += least, most
    for key, value in counts["device_slots"].items():
        number, slot = unpack("=II", key)
        if number in found:
            found[number].slots[slot] = int.from_bytes(value, "little")
    return found


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    by_device = [
        {
            "device": names.of_device(number),
            "count": sum(device.count.values()),
            "bytes": sum(device.bytes.values()),
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
            of=("device_sums", "device_slots"),
            label="device",
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
        ),
        Counter(
            name="unmatched_completions",
            help=(
                "Completions without an issue in the run: requests issued before it, and writes that ask for "
                "a flush, which complete once more beside the flush itself (the flush is measured)."
            ),
            hooks=("request_unmatched",),
        ),
        Keyed(
            name="device_sums",
            help="Finished requests by device, operation and CPU.",
            hooks=DONE,
            key="struct biolatency_part",
            value="struct biolatency_sum",
            entries=4096,  # 16 devices, 4 operations, 64 CPUs
            when_full="the request is missing in by_device, and counted as lost",
            reported=False,
        ),
        Keyed(
            name="device_slots",
            help="Finished requests by device and slot of a histogram.",
            hooks=DONE,
            key="struct biolatency_slot",
            entries=8192,  # 32 devices, 256 slots: all between 1 µs and 65 ms
            when_full="the device has no quantiles, and the request is counted as lost",
            reported=False,
        ),
    ),
    derive=derive,
)
