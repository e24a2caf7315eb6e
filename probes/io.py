"""Files, the page cache, and block requests before the device has them.  Kernel side: io.c, io.h"""

from collections.abc import Mapping
from struct import iter_unpack
from typing import Any

from chainbench_agent.catalog import (
    Counter,
    Derived,
    Distribution,
    Event,
    FixedNames,
    Metric,
    Module,
    Names,
    PerDisk,
    Table,
)

IN_FLIGHT = ("request_issued", "request_requeued", "request_done")

DONE = ("call_begins", "call_done")
CACHE = ("page_cache_asked", "page_cache_added", "call_begins")

FILE_CALLS = ("sendfile", "splice", "copy_file_range", "io_submit", "io_uring_enter", "mmap")
"""Calls that read and write files but are not file_reads or file_writes: the CALLS of c_names.py from SENDFILE on."""

FILES = (
    "Files are regular files (also in /proc and in memory), directories and block devices; not pipes, sockets and "
    "terminals. Calls in other_file_calls, and calls that have not returned, are not included."
)


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    return _latency(counts) | _page_cache(counts) | {"queue_depth": queue_depth(counts, names)}


def _latency(counts: Mapping[str, Any]) -> dict[str, Any]:
    """The mean latency of reads and writes; absent if there were none."""
    transfers = counts["file_reads"] + counts["file_writes"]
    ns = counts["read_latency_ns"].sum + counts["write_latency_ns"].sum
    return {"avg_io_latency_us": ns / transfers / 1e3} if transfers else {}


def _page_cache(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Hits are pages that were asked for and were there; if no page was asked for, the ratio is absent."""
    misses = counts["page_cache_misses"]
    hits = max(counts["pages_asked"] - misses, 0)
    ratio = {"cache_hit_ratio": 100 * hits / (hits + misses)} if hits + misses else {}
    return {"page_cache_hits": hits} | ratio


def queue_depth(counts: Mapping[str, Any], names: Names) -> list[dict[str, Any]]:
    """By device, the busiest first.  A request that is still in flight counts until the end of the run."""
    in_flight_ns: dict[int, int] = {}
    deepest: dict[int, int] = {}
    for key, parts in counts["queues"].items():
        device = int.from_bytes(key, "little")
        *sums, most = zip(*iter_unpack("=QQQQQQQ", parts), strict=True)
        issued, issued_ns, done, done_ns, returned, returned_ns = map(sum, sums)
        still = issued - done - returned
        in_flight_ns[device] = done_ns + returned_ns - issued_ns + still * names.run_ns
        deepest[device] = max(most)
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


# ---- block devices

BLOCK: tuple[Metric, ...] = (
    Derived(
        name="queue_depth",
        help=(
            "Requests issued to a device and not completed (or bios, on a disk that makes no requests), of all "
            "processes, because they all wait for the same device: the mean over the run (without requests issued "
            "before it), the maximum, and the device's I/O scheduler."
        ),
        of=("queues",),
        machine_wide=True,
        label="device",
        label_help="The disk's name as in /dev, or major:minor where it has none any more.",
        value="mean",
        gauge=True,
        prometheus="chainbench_io_queue_depth",
    ),
    Distribution(
        name="scheduler_latency_ns",
        help=(
            "Time of a block request in the I/O scheduler or the software queue until its issue. With the scheduler "
            "`none` most requests are issued directly, without a time in a queue."
        ),
        hooks=("request_queued",),
    ),
    PerDisk(
        name="queues",
        help="Requests issued and ended, and when, by disk and CPU.",
        hooks=IN_FLIGHT,
        value="struct io_queue",
        when_full="the disk has no queue depth, and each change of it is counted as lost",
        reported=False,
    ),
)


MODULE = Module(
    name="io",
    question="Which files did the workload use, and how long did it wait for them?",
    events=(
        Event(name="slow_fsync", help="An fsync or fdatasync took --slow-io-ms or more.", value="latency_ns"),
        Event(name="slow_request", help="A block device had a request for --slow-io-ms or more.", value="latency_ns"),
    ),
    metrics=(
        # ---- files
        Counter(name="file_reads_bytes", help="Bytes that reads of files returned.", hooks=DONE, per_process=True),
        Counter(name="file_writes_bytes", help="Bytes that writes to files wrote.", hooks=DONE, per_process=True),
        Counter(
            name="file_reads",
            help=f"Successful reads of files (read, pread64, readv, preadv, preadv2). {FILES}",
            hooks=DONE,
            per_process=True,
        ),
        Counter(
            name="file_writes",
            help=f"Successful writes to files (write, pwrite64, writev, pwritev, pwritev2). {FILES}",
            hooks=DONE,
            per_process=True,
        ),
        Table(
            name="other_file_calls",
            help=(
                "Successful calls that may read or write files but are not in file_reads and file_writes: sendfile, "
                "splice, copy_file_range, io_submit, io_uring_enter, and mmap of memory that is not anonymous. I/O "
                "through io_uring and mapped memory may need no call at all."
            ),
            hooks=DONE,
            entries=len(FILE_CALLS),
            names=FixedNames(FILE_CALLS),
            label="call",
        ),
        Table(
            name="other_file_bytes",
            help="Bytes that sendfile, splice and copy_file_range moved, from or to files, pipes or sockets.",
            hooks=DONE,
            entries=len(FILE_CALLS),
            names=FixedNames(FILE_CALLS),
            label="call",
        ),
        Counter(
            name="file_opens",
            help="Files opened (open, openat, openat2, creat): regular files, directories and block devices.",
            hooks=DONE,
        ),
        Counter(
            name="file_closes",
            help="Files closed by close; not those closed by close_range or by the end of a process.",
            hooks=DONE,
        ),
        Distribution(
            name="read_latency_ns",
            help="Time of file_reads from call to return; a call in progress when the run began counts from there.",
            hooks=DONE,
        ),
        Distribution(
            name="write_latency_ns",
            help="Time of file_writes from call to return; a call in progress when the run began counts from there.",
            hooks=DONE,
        ),
        Derived(
            name="avg_io_latency_us",
            help="Mean time of file_reads and file_writes; absent when there were none.",
            of=("file_reads", "file_writes", "read_latency_ns", "write_latency_ns"),
            gauge=True,
        ),
        Counter(name="fsyncs", help="Calls of fsync that succeeded.", hooks=DONE, per_process=True),
        Counter(name="fdatasyncs", help="Calls of fdatasync that succeeded.", hooks=DONE, per_process=True),
        Distribution(
            name="fsync_latency_ns",
            help="Time of fsyncs and fdatasyncs from call to return.",
            hooks=DONE,
        ),
        # ---- the page cache
        Counter(
            name="pages_asked",
            help="Pages that the reads in file_reads requested from the page cache.",
            hooks=CACHE,
            sampled=True,
            reported=False,
        ),
        Counter(
            name="page_cache_misses",
            help=(
                "Pages that the reads in file_reads added to the page cache, of the files that they read, including "
                "readahead. For mapped files see page_faults_major."
            ),
            hooks=CACHE,
        ),
        Counter(
            name="page_cache_other_pages",
            help=(
                "Pages that were added to the page cache during reads, but of other files than those that were read: "
                "page faults on a mapped file that is the memory of the read (page_faults_major), or metadata blocks "
                "of the file system. They are neither hits nor misses."
            ),
            hooks=(*CACHE, "call_done"),
        ),
        Derived(
            name="page_cache_hits",
            help=(
                "Pages that reads requested, minus page_cache_misses, which include readahead: a page that was read "
                "ahead is not a hit when it is used."
            ),
            of=("pages_asked", "page_cache_misses"),
            sampled=True,
        ),
        Derived(
            name="cache_hit_ratio",
            help="page_cache_hits, in percent of hits and misses; absent when reads requested no pages (O_DIRECT).",
            of=("pages_asked", "page_cache_misses"),
            sampled=True,
            gauge=True,
        ),
        *BLOCK,
    ),
    derive=derive,
)
