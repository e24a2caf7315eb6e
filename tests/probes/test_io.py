"""File I/O of system calls (probes/io.c), in cases that a test cannot bring about in a live kernel."""

import pytest

from chainbench_agent.abi.histogram import HistogramCounts
from chainbench_agent.catalog import Names
from chainbench_agent.probes.io import FILE_CALLS, derive

READ, WRITE, OPEN, CLOSE, FSYNC, FDATASYNC = 0, 1, 2, 3, 74, 75
EIO = -5


@pytest.fixture
def caller(kernel):
    return kernel.task(10)


@pytest.fixture
def running(kernel, caller):
    kernel.open(caller, 3)
    return kernel.at(1000).begin()


def call(kernel, task, number, fd, answer):
    """70 ns long."""
    kernel.enter(task, number, fd)
    kernel.at(kernel.now_ns + 70).leave(task, answer)


def figures(kernel, *names):
    io = kernel.counted()["io"]
    return tuple(io[name] for name in names)


@pytest.mark.parametrize(
    ("mode", "counts"),
    [("file", 1), ("block", 1), ("directory", 1), ("pipe", 0), ("socket", 0), ("character", 0), ("anonymous", 0)],
)
def test_what_a_file_is(kernel, caller, mode, counts):
    """For reads, writes, opens and closes alike."""
    kernel.open(caller, 7, mode=mode)
    kernel.at(1000).begin()
    for number in (READ, WRITE):
        call(kernel, caller, number, 7, 100)
    call(kernel, caller, OPEN, 0, 7)
    kernel.enter(caller, CLOSE, 7)
    kernel.close(caller, 7)
    kernel.leave(caller, 0)

    assert figures(kernel, "file_reads", "file_writes", "file_opens", "file_closes") == (counts,) * 4
    assert figures(kernel, "file_reads_bytes", "file_writes_bytes") == (counts * 100,) * 2


@pytest.mark.parametrize("fd", [0, 4, 1 << 20, 0xFFFFFFFF])
def test_a_descriptor_that_is_not_open(running, caller, fd):
    """A descriptor without a file, or beyond the table, counts for no file."""
    call(running, caller, READ, fd, 100)
    call(running, caller, OPEN, 0, fd)
    call(running, caller, CLOSE, fd, 0)

    assert figures(running, "file_reads", "file_opens", "file_closes") == (0, 0, 0)


def test_a_file_closed_while_it_is_read(running, caller):
    """The read counts, as the descriptor was a file when it began."""
    running.enter(caller, READ, 3)
    running.close(caller, 3)
    running.leave(caller, 100)

    assert figures(running, "file_reads", "file_reads_bytes") == (1, 100)


def test_a_failed_close_has_closed(running, caller):
    call(running, caller, CLOSE, 3, EIO)

    assert figures(running, "file_closes") == (1,)


def test_syncs_of_each_kind(running, caller):
    """A failed call is not counted."""
    for number, answer in ((FSYNC, 0), (FDATASYNC, 0), (FDATASYNC, 0), (FSYNC, EIO)):
        call(running, caller, number, 3, answer)

    fsyncs, fdatasyncs, latency = figures(running, "fsyncs", "fdatasyncs", "fsync_latency_ns")
    assert (fsyncs, fdatasyncs, sum(latency.slots), latency.sum) == (1, 2, 3, 210)


@pytest.mark.parametrize(
    ("reads", "writes", "expected"),
    [
        ((2, 3000), (1, 6000), {"avg_io_latency_us": 3}),
        ((0, 0), (1, 500), {"avg_io_latency_us": 0.5}),
        ((0, 0), (0, 0), {}),
    ],
)
def test_the_mean_of_reads_and_writes(reads, writes, expected):
    """Without reads and writes there is no mean."""
    counts = {"pages_asked": 0, "page_cache_misses": 0}
    for name, (count, ns) in {"read": reads, "write": writes}.items():
        counts |= {f"file_{name}s": count, f"{name}_latency_ns": HistogramCounts((), ns, None, None)}

    assert (
        derive(counts | {"queues": {}}, Names({}, {}, {}, {})) == {"page_cache_hits": 0, "queue_depth": []} | expected
    )


SENDFILE, SPLICE, COPY_FILE_RANGE, IO_SUBMIT, IO_URING_ENTER, MMAP = 40, 275, 326, 209, 426, 9
PRIVATE, ANONYMOUS = 0x2, 0x20


def test_calls_that_move_file_data_otherwise(running, caller):
    """A call that succeeds is counted with the bytes it reports; failed ones and anonymous memory are not."""
    for number, answer in (
        (SENDFILE, 4096),
        (SENDFILE, 512),
        (SPLICE, 0),
        (COPY_FILE_RANGE, 1 << 20),
        (IO_SUBMIT, 3),
        (IO_URING_ENTER, 5),
        (COPY_FILE_RANGE, -18),
    ):
        running.enter(caller, number, 1, 2, 3)
        running.leave(caller, answer)
    for flags, address in ((PRIVATE, 0x7F0000000000), (PRIVATE | ANONYMOUS, 0x7F0000001000), (PRIVATE, -12)):
        running.enter(caller, MMAP, 0, 4096, 1, flags)
        running.leave(caller, address)

    counted = running.counted()["io"]
    assert dict(zip(FILE_CALLS, counted["other_file_calls"], strict=True)) == {
        "sendfile": 2,
        "splice": 1,
        "copy_file_range": 1,
        "io_submit": 1,
        "io_uring_enter": 1,
        "mmap": 1,
    }
    assert dict(zip(FILE_CALLS, counted["other_file_bytes"], strict=True)) == {
        "sendfile": 4608,
        "splice": 0,
        "copy_file_range": 1 << 20,
        "io_submit": 0,
        "io_uring_enter": 0,
        "mmap": 0,
    }
    assert (counted["file_reads"], counted["file_writes"]) == (0, 0)
