"""What happens to I/O before the device has it.  Kernel side: io.c"""

from collections import defaultdict
from collections.abc import Mapping
from struct import unpack
from typing import Any

from chainbench_agent.spec import Derived, Distribution, Keyed, Metric, Module, Names, Scratch

# ---- block devices

IN_FLIGHT = ("request_issued", "request_requeued", "request_done")


def queue_depth(counts: Mapping[str, Any], names: Names) -> list[dict[str, Any]]:
    """By device, the busiest first.  A request still in flight has been so until the end of the run."""
    in_flight_ns: dict[int, int] = defaultdict(int)
    deepest: dict[int, int] = defaultdict(int)
    for key, value in counts["queues"].items():
        device, _cpu = unpack("=II", key)
        ns, open_now, most = unpack("=qqQ", value)
        in_flight_ns[device] += ns + open_now * names.run_ns
        deepest[device] = max(deepest[device], most)
    return [
        {
            "device": names.of_device(device),
            "scheduler": names.tables.get("schedulers", {}).get(device, ""),
            "mean": round(ns / names.run_ns, 6),
            "max": deepest[device],
        }
        for device, ns in sorted(in_flight_ns.items(), key=lambda item: -item[1])
        if names.run_ns
    ]


BLOCK: tuple[Metric, ...] = (
    Derived(
        name="queue_depth",
        help=(
            "Requests issued to a device and not completed, of everybody, because all wait for the same device: mean "
            "over the run's time (without those issued before it), highest seen, the device's I/O scheduler."
        ),
        of=("queues",),
        machine_wide=True,
        label="device",
        value="mean",
        gauge=True,
        prometheus="chainbench_io_queue_depth",
    ),
    Distribution(
        name="scheduler_latency_ns",
        help=(
            "Time of a block request in the I/O scheduler or the software queue until its issue. With the scheduler "
            "`none` most are issued at once, without having been there: then there is nothing to measure."
        ),
        hooks=("request_queued",),
    ),
    Keyed(
        name="queues",
        help="Requests in flight and their time by device and CPU.",
        hooks=IN_FLIGHT,
        key="struct io_queue_part",
        value="struct io_queue",
        entries=4096,  # 64 devices, 64 CPUs
        when_full="the device's queue depth is wrong, and each change that is missing is counted as lost",
        reported=False,
    ),
)
BLOCK_SCRATCH = (Scratch(name="depths", entries=1024, when_full="as queues; one per device"),)


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    return {"queue_depth": queue_depth(counts, names)}


MODULE = Module(
    name="io",
    question="Was I/O held up before the device had it?",
    metrics=BLOCK,
    scratch=BLOCK_SCRATCH,
    derive=derive,
)
