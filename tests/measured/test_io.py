"""Files and the page cache: exact calls, bytes and pages, without pipes and sockets."""

import json
import os
import platform

import pytest
from disks import MIB, sh

from chainbench_agent.host.syscall_names import syscalls
from chainbench_agent.probes import CALLS

pytestmark = pytest.mark.bpf

NUMBERS = {name: number for number, name in syscalls(platform.machine()).items()}
"""Not every architecture has every call: arm64 has no open and no creat."""

SETUP = f"""
import ctypes, os, socket, time
NUMBERS = {NUMBERS!r}
LIBC = ctypes.CDLL(None)
BUFFER = ctypes.create_string_buffer(100)
VECTOR = (ctypes.c_void_p * 2)(ctypes.addressof(BUFFER), 100)
def call(name, *arguments):
    return LIBC.syscall(*(ctypes.c_long(a) if isinstance(a, int) else a for a in (NUMBERS[name], *arguments)))
def transfer(name, fd, times):
    vectored, positioned = "v" in name, name.startswith("p")
    data = (VECTOR, 1) if vectored else (BUFFER, 100)
    position = (0, 0) if vectored and positioned else (0,) if positioned else ()
    for _ in range(times):
        assert call(name, fd, *data, *position, 0) == 100, name
"""

READS = {"read": 11, "pread64": 1009, "readv": 53, "preadv": 13, "preadv2": 17}
WRITES = {"write": 101, "pwrite64": 103, "writev": 107, "pwritev": 109, "pwritev2": 113}
OPENS = {name: times for name, times in {"open": 3, "openat": 5, "creat": 2}.items() if name in NUMBERS}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(100 * 300))
    return path


def test_every_call_that_reads_or_writes_is_counted(targeted, path):
    """Each variant a prime number of times.  A read at the end of the file has 0 bytes, an error is not counted."""
    setup = (
        SETUP
        + f"""
source, sink, account = (os.open(*file) for file in (({str(path)!r}, 0), ({str(path)!r}, 1), ("/proc/self/io", 0)))
"""
    )
    code = f"""
before = os.pread(account, 4096, 0)
for name, times in {READS!r}.items(): transfer(name, source, times)
for name, times in {WRITES!r}.items(): transfer(name, sink, times)
after = os.pread(account, 4096, 0)
print(len(before), len(after), before.decode(), after.decode(), flush=True)
assert os.pread(source, 100, 100 * 300 - 37) and not os.pread(source, 100, 1 << 30)
for _ in range(5):
    assert call("pread64", sink, BUFFER, 100, 0) == call("pread64", 999, BUFFER, 100, 0) == -1
    assert call("pread64", source, 0, 100, 0) == call("pwrite64", source, BUFFER, 100, 0) == -1
os._exit(0)
"""
    one = targeted(code, setup)
    io = one.run()["io"]

    first, second, *account = one.output.split()
    assert {*READS} == {*CALLS["READ"]}
    assert {*WRITES} == {*CALLS["WRITE"]}
    assert io["file_reads"] == io["read_latency_us"]["count"] == sum(READS.values()) + 2 + 2
    assert io["file_reads_bytes"] == 100 * sum(READS.values()) + 37 + int(first) + int(second)
    assert io["file_writes"] == io["write_latency_us"]["count"] == sum(WRITES.values())
    assert io["file_writes_bytes"] == 100 * sum(WRITES.values())
    # /proc/PID/io was asked before its own answer was counted
    before, after = (dict(zip(half[::2], map(int, half[1::2]), strict=True)) for half in (account[:14], account[14:]))
    grown = {name.strip(":"): after[name] - before[name] for name in before}
    assert (grown["syscr"], grown["rchar"]) == (io["file_reads"] - 3, io["file_reads_bytes"] - 37 - int(second))
    assert (grown["syscw"], grown["wchar"]) == (io["file_writes"], io["file_writes_bytes"])


@pytest.mark.needs("fio")
def test_fio_reports_the_same_calls_and_bytes(targeted, tmp_path):
    """And times that are hardly shorter than those that it measured."""
    path, report = tmp_path / "file", tmp_path / "report"
    path.write_bytes(os.urandom(8 * MIB))
    options = f"--name=job --filename={path} --size=8m --bs=4k --rw=randrw --number_ios=1511 --fdatasync=101"
    command = ["fio", *options.split(), "--ioengine=psync", "--output-format=json", f"--output={report}"]

    io = targeted(f"import os; os.execvp('fio', {command!r})").run()["io"]

    (job,) = json.loads(report.read_text())["jobs"]
    worker = io["top_processes"][0]
    read, written = job["read"], job["write"]
    assert read["total_ios"] + written["total_ios"] == 1511
    assert (worker["file_writes"], worker["file_writes_bytes"]) == (written["total_ios"], written["io_bytes"])
    # before the job, the worker reads a few bytes about its disk
    assert 0 <= worker["file_reads"] - read["total_ios"] <= 3
    assert 0 <= worker["file_reads_bytes"] - read["io_bytes"] <= 300
    assert worker["fdatasyncs"] == io["fdatasyncs"] == job["sync"]["lat_ns"]["N"] > 0
    ours_us = {kind: io[f"{kind}_latency_us"]["sum_us"] for kind in ("read", "write", "fsync")}
    assert 0.5 < ours_us["write"] * 1e3 / (written["clat_ns"]["mean"] * written["total_ios"]) < 1.1
    assert 0.9 < ours_us["fsync"] * 1e3 / (job["sync"]["lat_ns"]["mean"] * io["fdatasyncs"]) < 1


def test_pipes_sockets_and_devices_are_not_files(targeted, path):
    """Pipes, sockets, anonymous files, terminals, /dev/zero: neither their opening, nor their traffic, nor their end.

    One in memory is a file.
    """
    setup = (
        SETUP
        + f"""
r, w = os.pipe()
a, b = socket.socketpair()
terminal, keyboard = os.openpty()
counter = os.eventfd(1)
inotify = ctypes.CDLL(None).inotify_init1(os.O_NONBLOCK)
memory = os.memfd_create("a file of its own, in memory")
os.mkfifo({str(path)!r} + ".fifo")
"""
    )
    code = f"""
for _ in range(19):
    os.write(w, b"x" * 50); os.read(r, 50)
    os.write(a.fileno(), b"x" * 50); os.read(b.fileno(), 50)
    os.write(counter, bytes(7) + b"\\1"); os.read(counter, 8)
    os.write(keyboard, b"x\\n"); os.read(terminal, 3)
    for name in ("/dev/zero", {str(path)!r} + ".fifo"):
        fd = os.open(name, os.O_RDWR); os.write(fd, b"x" * 50); os.read(fd, 50); os.close(fd)
    fd = os.open({str(path)!r}, os.O_RDWR); os.pwrite(fd, b"x" * 7, 0); os.pread(fd, 11, 0); os.close(fd)
for fd in (r, w, a.detach(), b.detach(), terminal, keyboard, counter, inotify, memory): os.close(fd)
os._exit(0)
"""
    io = targeted(code, setup).run()["io"]

    assert (io["file_opens"], io["file_closes"]) == (19, 19 + 1)
    assert (io["file_reads"], io["file_reads_bytes"]) == (19, 19 * 11)
    assert (io["file_writes"], io["file_writes_bytes"]) == (19, 19 * 7)


def test_opens_and_closes_are_counted(targeted, path):
    """By each call, also of directories, but not failed ones, nor the closes at the end of a process."""
    setup = (
        SETUP
        + f"""
name, below = ctypes.c_char_p({str(path)!r}.encode()), {str(path.parent)!r}
how = (ctypes.c_uint64 * 3)()
at = -100
arguments = {{"open": (name, 0), "openat": (at, name, 0), "creat": (name, 0o600), "openat2": (at, name, how, 24)}}
"""
    )
    code = f"""
opened = [call(open_, *arguments[open_]) for open_, times in {OPENS!r}.items() for _ in range(times)]
opened += [call("openat2", *arguments["openat2"]) for _ in range(7)]
opened += [os.open(below, os.O_RDONLY | os.O_DIRECTORY) for _ in range(11)]
for _ in range(13): assert call("openat", at, 0, 0) == call("close", 999) == -1
for fd in opened[1:]: os.close(fd)
os._exit(0)
"""
    io = targeted(code, setup).run()["io"]

    assert {*CALLS["OPEN"]} & {*NUMBERS} == {*OPENS, "openat2"}
    assert io["file_opens"] == sum(OPENS.values()) + 7 + 11
    assert io["file_closes"] == io["file_opens"] - 1


def test_syncs_are_counted_with_their_time(targeted, path):
    """23 and 11, as long as the process itself measured, and hardly less; none of a pipe."""
    setup = SETUP + f"fd = os.open({str(path)!r}, os.O_WRONLY); r, w = os.pipe(); c = time.monotonic_ns"
    code = """
def timed(call, *arguments):
    begin = c(); call(*arguments); return c() - begin
around = 0
for i in range(23): os.pwrite(fd, b"x" * (i + 1), 0); around += timed(os.fsync, fd)
for i in range(11): os.pwrite(fd, b"y" * (i + 1), 0); around += timed(os.fdatasync, fd)
for _ in range(5): assert call("fsync", w) == call("fdatasync", 999) == -1
print(around, flush=True)
os._exit(0)
"""
    one = targeted(code, setup)
    io = one.run()["io"]

    latency = io["fsync_latency_us"]
    around_us = int(one.output) / 1e3
    assert (io["fsyncs"], io["fdatasyncs"], latency["count"]) == (23, 11, 34)
    assert 0.5 * around_us < latency["sum_us"] < around_us
    assert io["top_processes"][0]["fsyncs"] == 23


@pytest.fixture
def reading(targeted, tmp_path):
    """`reading(code)` → the section of a process that reads a file of 16 MiB.

    All of it is in the page cache and held there, because this kernel may take pages away at any time; `cold`: none is.
    """
    path = tmp_path / "large"
    path.write_bytes(os.urandom(16 * MIB))
    setup = f"""
import ctypes, mmap, os
fd, buffer = os.open({str(path)!r}, os.O_RDWR), bytearray({MIB})
direct, page = os.open({str(path)!r}, os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 4096)
def read(size, begin=0):
    for at in range(begin, 16 * {MIB}, size): os.preadv(fd, [memoryview(buffer)[:size]], at)
"""
    forget = "os.fsync(fd); os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)"
    hold = f"""
held = mmap.mmap(fd, 16 * {MIB})
assert ctypes.CDLL(None).mlock(ctypes.byref(ctypes.c_char.from_buffer(held)), ctypes.c_size_t(16 * {MIB})) == 0
"""

    def read(code, more="", *, cold=False):
        return targeted(f"{code}\nos._exit(0)", setup + more + "\n" + (forget if cold else hold)).run()["io"]

    return read


def cache(io):
    return io["page_cache_misses"], io["page_cache_hits"], io.get("cache_hit_ratio")


def test_pages_are_misses_and_then_hits(reading):
    """16 MiB that are not cached are 4,096 misses, then 4,096 hits, whatever the size of the reads."""
    assert cache(reading("read(1 << 16)", cold=True)) == (4096, 0, 0)
    assert cache(reading("read(1 << 20)", cold=True)) == (4096, 0, 0)
    assert cache(reading("read(1 << 16)")) == (0, 4096, 100)
    assert cache(reading("read(1 << 20)")) == (0, 4096, 100)
    assert cache(reading("read(1 << 16); read(1 << 12, 8 << 20)", cold=True)) == (4096, 2048, 33.333333)


def test_each_page_of_the_file_counts_once_per_read(reading):
    """A buffer reaches beyond the end, a read begins within a page, a page is read again and again."""
    assert cache(reading(f"os.preadv(fd, [buffer], 16 * {MIB} - 5000)")) == (0, 2, 100)
    assert cache(reading("for _ in range(101): os.pread(fd, 2, 4095)")) == (0, 202, 100)
    assert cache(reading(f"os.pread(fd, 7, 16 * {MIB})")) == (0, 0, None)


def test_writes_and_direct_reads_do_not_look_up_pages(reading):
    """Writes bring pages that nobody read, and O_DIRECT does not use the page cache."""
    assert cache(reading("os.ftruncate(fd, 0); [os.pwrite(fd, buffer, i << 20) for i in range(7)]")) == (0, 0, None)
    io = reading("for i in range(101): os.preadv(direct, [page], i * 4096)", cold=True)
    assert (io["file_reads_bytes"], cache(io)) == (101 * 4096, (0, 0, None))


MAPPED = """
other = os.open({path!r}, os.O_RDWR | os.O_CREAT)
os.write(other, os.urandom(256 * 4096))
os.fsync(other)
mapped = mmap.mmap(other, 256 * 4096)
mapped.madvise(mmap.MADV_RANDOM)
os.posix_fadvise(other, 0, 0, os.POSIX_FADV_DONTNEED)
def read_into(file):
    for at in range(0, 256 * 4096, 4096): os.preadv(file, [memoryview(mapped)[at:at + 4096]], at)
"""


def test_pages_of_the_buffer_do_not_count_for_the_read(reading, tmp_path):
    """The 256 pages of a mapped file that is not in memory do not count for the read, whatever its size."""
    mapped = MAPPED.format(path=str(tmp_path / "mapped"))

    cached = reading("read_into(fd)", mapped)
    assert (cache(cached), cached["page_cache_other_pages"]) == ((0, 256, 100), 256)
    direct = reading("read_into(direct)", mapped, cold=True)
    assert (cache(direct), direct["page_cache_other_pages"]) == ((0, 0, None), 256)
    both = reading("read_into(fd)", f"os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)\n{mapped}", cold=True)
    assert (cache(both), both["page_cache_other_pages"]) == ((256, 0, 0), 256)


def test_overlayfs_counts_the_pages_of_the_file_below(targeted, tmp_path):
    """1,024 cold pages are misses, and then hits."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/file").write_bytes(os.urandom(4 * MIB))
    layers = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    setup = f"""
import os
lower = os.open({str(tmp_path / "lower/file")!r}, os.O_RDWR)
os.fsync(lower)
os.posix_fadvise(lower, 0, 0, os.POSIX_FADV_DONTNEED)
fd, buffer = os.open({str(tmp_path / "merged/file")!r}, os.O_RDONLY), bytearray({MIB})
"""
    sh("mount", "-t", "overlay", "overlay", "-o", layers, str(tmp_path / "merged"))
    try:
        io = targeted(f"for at in range(8): os.preadv(fd, [buffer], (at % 4) * {MIB})", setup).run()["io"]
    finally:
        sh("umount", str(tmp_path / "merged"))

    assert cache(io) == (1024, 1024, 50)


def test_other_calls_that_move_file_data_are_counted_separately(targeted, path):
    """7 sendfile, 5 copy_file_range, 3 splice and 2 mappings of a file, and no file_reads."""
    code = f"""
import mmap, os
source, sink = os.open({str(path)!r}, os.O_RDWR | os.O_CREAT), os.open({str(path)!r} + ".copy", os.O_RDWR | os.O_CREAT)
os.ftruncate(source, 1 << 20)
inlet, outlet = os.pipe()
def work():
    for i in range(7): assert os.sendfile(sink, source, 0, 4096) == 4096
    for i in range(5): assert os.copy_file_range(source, sink, 8192, 0, 0) == 8192
    for i in range(3): assert os.splice(source, outlet, 512, offset_src=0) == 512
    for i in range(2): mmap.mmap(source, 4096)
    for i in range(4): mmap.mmap(-1, 4096)
"""
    io = targeted("work()", code).run()["io"]

    calls, moved = io["other_file_calls"], io["other_file_bytes"]
    assert (calls["sendfile"], calls["copy_file_range"], calls["splice"]) == (7, 5, 3)
    assert (moved["sendfile"], moved["copy_file_range"], moved["splice"]) == (7 * 4096, 5 * 8192, 3 * 512)
    assert calls.get("mmap", 0) == 2
    assert io["file_reads_bytes"] == io["file_writes_bytes"] == 0
