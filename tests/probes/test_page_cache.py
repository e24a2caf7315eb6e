"""Page cache hits and misses of reads (probes/io.c): pages asked for, and pages brought in."""

import ctypes

import pytest
from user_space import UserSpace, fused

from chainbench_agent.abi.histogram import HistogramCounts
from chainbench_agent.catalog import Names
from chainbench_agent.probes.io import derive

READ, WRITE, PREAD = 0, 1, 17


@pytest.fixture
def caller(kernel):
    return kernel.task(10)


def pages(kernel):
    """(asked for, brought)"""
    io = kernel.counted()["io"]
    return io["pages_asked"], io["page_cache_misses"]


def others(kernel):
    return kernel.counted()["io"]["page_cache_other_pages"]


def ask(kernel, task, file, first, last):
    kernel.fire("page_cache_asked_0", kernel.mapping(file), first, last, current=task)


def add(kernel, task, file, pages=1, index=0):
    kernel.fire("page_cache_added_1", kernel.folio(file, pages, index), current=task)


@pytest.fixture
def file(kernel, caller):
    """A file of 100 pages, the last of them begun."""
    return kernel.open(caller, 5, size=99 * 4096 + 1)


@pytest.fixture
def reading(kernel, caller, file):  # noqa: ARG001 - it is the file that is read
    kernel.at(1000).begin()
    kernel.enter(caller, READ, 5)
    return kernel


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ([(0, 15)], 16),
        ([(0, 15), (4, 15), (12, 15)], 16),  # what is left, after each batch
        ([(0, 15), (0, 15)], 16),  # retried
        ([(90, 1000)], 10),  # a buffer beyond the end
        ([(99, 99), (100, 100)], 1),
        ([(100, 200), (150, 200)], 0),
    ],
)
def test_each_page_counts_once(reading, caller, file, asked, expected):
    """In one read; the file ends at page 99."""
    for first, last in asked:
        ask(reading, caller, file, first, last)

    assert pages(reading) == (expected, 0)


def test_the_next_read_asks_again(reading, caller, file):
    """For the same pages."""
    ask(reading, caller, file, 4, 7)
    reading.leave(caller, 100)
    reading.enter(caller, PREAD, 5)
    ask(reading, caller, file, 4, 7)

    assert pages(reading) == (8, 0)


def test_an_empty_file(reading, caller):
    empty = reading.open(caller, 6, size=0)
    ask(reading, caller, empty, 0, 3)
    ask(reading, caller, empty, 5, 7)

    assert pages(reading) == (0, 0)


def test_pages_by_folio(reading, caller, file):
    """A large folio is as many misses as it has pages."""
    for size in (1, 4, 16, 1):
        add(reading, caller, file, size)
    ask(reading, caller, file, 0, 0)

    assert pages(reading) == (1, 22)


@pytest.mark.parametrize("without", [["folio._nr_pages"], ["folio._nr_pages", "folio._folio_nr_pages"]])
def test_pages_on_older_kernels(compile_unit, without):
    """The number had another name, and before that stood in the second page."""
    text = fused(has_field=lambda field: field not in without).text
    kernel = UserSpace(ctypes.CDLL(str(compile_unit(text, f"older{len(without)}"))))
    caller = kernel.task(10)
    file = kernel.open(caller, 5)
    kernel.at(1000).begin()
    kernel.enter(caller, READ, 5)
    ask(kernel, caller, file, 0, 0)
    kernel.fire("page_cache_added_0", kernel.folio(file, 16), current=caller)

    assert pages(kernel) == (1, 16)


def test_a_page_behind_the_end(reading, caller, file):
    """Linux 5.10 makes one where a buffer reaches beyond the end of the file, and finds that it is not there."""
    add(reading, caller, file, index=99)
    add(reading, caller, file, index=100)
    ask(reading, caller, file, 99, 99)

    assert pages(reading) == (1, 1)
    assert others(reading) == 0


@pytest.mark.parametrize("before", [True, False], ids=["told before it asks", "told after it asked"])
def test_pages_of_another_file_are_not_the_reads(reading, caller, file, before):
    """Page faults on a mapped file into which a read writes are others', in either order of the events."""
    memory = reading.open(caller, 6, size=1 << 20)
    for first in (0, 8, 16):
        if before:
            add(reading, caller, file, 8, index=first)
        ask(reading, caller, file, first, 31)
        if not before:
            add(reading, caller, file, 8, index=first)
        add(reading, caller, memory, 3, index=first)
    reading.leave(caller, 24 * 4096)

    assert pages(reading) == (32, 24)
    assert others(reading) == 9


def test_a_cached_file_is_read_into_a_mapped_one(reading, caller, file):
    """All that it asks for is there, and all that is brought is not what it asked for."""
    memory = reading.open(caller, 6, size=1 << 20)
    for _ in range(256):
        ask(reading, caller, file, 7, 7)
        add(reading, caller, memory, 1)
        reading.leave(caller, 4096)
        reading.enter(caller, READ, 5)

    assert pages(reading) == (256, 0)
    assert others(reading) == 256


def test_the_vector_of_a_read_lies_in_a_mapped_file(reading, caller, file):
    """It is fetched before the read asks for anything; its file is another one."""
    vector = reading.open(caller, 6, size=1 << 20)
    add(reading, caller, vector, 2)
    add(reading, caller, file, 4)
    add(reading, caller, file, 4, index=4)
    ask(reading, caller, file, 0, 7)

    assert pages(reading) == (8, 8)
    assert others(reading) == 2


def test_a_direct_read_brings_nothing(reading, caller):
    """It asks for no pages: what is added is that of the memory which it fills."""
    memory = reading.open(caller, 6, size=1 << 20)
    add(reading, caller, memory, 5)
    reading.leave(caller, 5 * 4096)
    reading.enter(caller, READ, 5)

    assert pages(reading) == (0, 0)
    assert others(reading) == 5


def test_a_read_of_a_layered_file_system(reading, caller):
    """The opened file has a mapping of its own; pages of the file below it count as pages of the read."""
    below = reading.open(caller, 6, size=1 << 20)
    reading.enter(caller, READ, 5)
    add(reading, caller, below, 4)
    ask(reading, caller, below, 0, 3)

    assert pages(reading) == (4, 4)
    assert others(reading) == 0


def test_what_is_no_page_of_the_file(reading, caller):
    """The blocks in which a file system looks where the file lies; pages outside of any read, or for a write."""
    device = reading.open(caller, 6, mode="block")
    add(reading, caller, device)
    reading.leave(caller, 100)
    assert others(reading) == 1
    regular = reading.open(caller, 7)
    add(reading, caller, regular)
    ask(reading, caller, regular, 0, 3)
    reading.enter(caller, WRITE, 5)
    add(reading, caller, regular)

    assert pages(reading) == (0, 0)


def test_a_block_device_is_read(reading, caller):
    """Its pages are what is asked for."""
    device = reading.open(caller, 6, mode="block", size=1 << 20)
    reading.leave(caller, 0)
    reading.enter(caller, READ, 6)
    ask(reading, caller, device, 0, 7)
    add(reading, caller, device, 8)

    assert pages(reading) == (8, 8)


def test_others_pages(kernel, file):
    """Reads of a process that is not in the target are not counted."""
    kernel.at(1000).tree(10).begin()
    other = kernel.task(20)
    kernel.open(other, 5)
    kernel.enter(other, READ, 5)
    ask(kernel, other, file, 0, 3)
    add(kernel, other, file)

    assert pages(kernel) == (0, 0)


@pytest.mark.parametrize("function", ["filemap_read", "generic_file_buffered_read"])
def test_a_buffered_read_on_older_kernels(reading, caller, file, function):
    """The pages asked for are computed from position and size; newer kernels have an event for them."""
    found = []
    for position, size in ((0, 4096), (3 * 4096 - 1, 2), (4 * 4096, 1 << 16), (98 * 4096, 1 << 20)):
        iocb, to = (ctypes.c_uint64 * 2)(file, position), ctypes.c_uint64(size)
        reading.fire(f"kfunc__{function}", ctypes.addressof(iocb), ctypes.addressof(to), current=caller)
        found.append(pages(reading)[0])

    assert found == [1, 3, 19, 21]


def test_sampled_pages(kernel, caller, file):
    """One read in five stands for five, and a batch more is no read more."""
    kernel.sample_interval = 5
    kernel.at(1000).begin()
    for _ in range(10):
        kernel.enter(caller, READ, 5)
        ask(kernel, caller, file, 0, 15)
        ask(kernel, caller, file, 8, 15)
        kernel.leave(caller, 100)

    assert pages(kernel) == (10 * 16, 0)


@pytest.mark.parametrize(
    ("asked", "misses", "expected"),
    [(4096, 0, (4096, 100)), (4096, 4096, (0, 0)), (100, 25, (75, 75)), (1, 32, (0, 0)), (0, 0, (0, None))],
    ids=["hot", "cold", "warm", "read ahead for nobody", "not asked"],
)
def test_hits(asked, misses, expected):
    """Hits are the pages asked for without those brought in, and at least zero."""
    none = HistogramCounts((), 0, None, None)
    counts = {"file_reads": 0, "file_writes": 0, "read_latency_ns": none, "write_latency_ns": none}

    found = derive(counts | {"pages_asked": asked, "page_cache_misses": misses, "queues": {}}, Names({}, {}, {}, {}))

    assert (found["page_cache_hits"], found.get("cache_hit_ratio")) == expected
