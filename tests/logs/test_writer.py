"""The log's writer does not block its callers, and counts and reports what is missing."""

import fcntl
import logging
import os
import select
import subprocess
import sys
import threading

import pytest

from chainbench_agent.logs.writer import CLOSED, MOST_BYTES, NOBODY_READS, LineStream, LogWriter

PIPE_BYTES = 65536


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield reading, writing
    for fd in (reading, writing):
        os.close(fd)


def log(writer, message):
    writer.handle(logging.makeLogRecord({"msg": message, "levelname": "INFO"}))


def lines_of(reading, last):
    """The lines that can be read, up to the line `last`."""
    data = b""
    while not data.endswith(last + b"\n"):
        assert select.select([reading], [], [], 60)[0], data[-200:]
        data += os.read(reading, 1 << 16)
    return data.splitlines()


def test_an_entry_is_written_when_the_call_returns(pipe):
    """So a log that is read after a response is complete."""
    reading, writing = pipe
    log(LogWriter(writing), "one")

    assert os.read(reading, 100) == b"one\n"


def test_entries_that_nobody_reads_are_queued_and_then_dropped(pipe):
    """Later all queued entries come in order, and the log itself says how many are missing, and where."""
    reading, writing = pipe
    writer = LogWriter(writing)
    long = "x" * 4095
    fits = (PIPE_BYTES + MOST_BYTES) // 4096
    for number in range(fits + 53):
        log(writer, f"{number:04d}{long[4:]}")
    missing = writer.status.dropped

    assert 52 <= missing <= 54  # the thread has one in hand
    assert writer.status.reason == NOBODY_READS
    notice = f"{missing} log records were dropped: {NOBODY_READS}".encode()
    *entries, said = lines_of(reading, notice)
    assert [int(entry[:4]) for entry in entries] == list(range(fits + 53 - missing))
    assert said == notice
    log(writer, "read again")
    assert os.read(reading, 100) == b"read again\n"


def test_the_end_of_the_process_does_not_wait_for_a_reader(pipe):
    """The remaining entries are lost."""
    _, writing = pipe
    writer = LogWriter(writing)
    log(writer, "x" * (2 * PIPE_BYTES))
    ended = threading.Event()
    threading.Thread(target=lambda: (writer.flush(), ended.set()), daemon=True).start()

    assert ended.wait(60)
    assert writer.status.dropped == 0


def test_entries_without_a_reader_are_dropped_with_the_kernels_error(pipe):
    reading, writing = pipe
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, reading)
    os.close(null)
    writer = LogWriter(writing)
    for _ in range(3):
        log(writer, "lost")

    assert (writer.status.dropped, writer.status.reason) == (3, "stderr cannot be written: Broken pipe")


@pytest.mark.mount
def test_entries_for_a_full_disk_are_dropped(tmp_path):
    """When there is room again, the log says how many were dropped, and continues."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=True)
    try:
        filler, file = place / "filler", os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        filler.write_bytes(bytes(65536))
        writer = LogWriter(file)
        for _ in range(5):
            log(writer, "no room")
        assert writer.status.reason == "stderr cannot be written: No space left on device"
        filler.unlink()
        log(writer, "room")
        os.close(file)
        assert (place / "log").read_text().splitlines() == [
            "5 log records were dropped: stderr cannot be written: No space left on device",
            "room",
        ]
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_non_blocking_descriptor_loses_nothing(pipe):
    """Any process that shares the pipe can set the flag."""
    reading, writing = pipe
    os.set_blocking(writing, False)
    writer = LogWriter(writing)
    for number in range(53):
        log(writer, f"{number:04d}" + "x" * 4092)
    log(writer, "last")

    assert [line[:4] for line in lines_of(reading, b"last")] == [*(b"%04d" % n for n in range(53)), b"last"]
    assert writer.status.dropped == 0


def test_entries_for_a_closed_stderr_are_dropped():
    writer = LogWriter(None)
    log(writer, "lost")

    assert (writer.status.dropped, writer.status.reason) == (1, CLOSED)


def test_a_forked_child_writes_its_own_entries(pipe):
    """It has no thread yet, and does not write the entries that wait in its parent."""
    reading, writing = pipe
    writer = LogWriter(writing)
    log(writer, "parent")
    if not (child := os.fork()):
        log(writer, "child")
        os._exit(0)
    os.waitpid(child, 0)
    log(writer, "parent again")

    assert lines_of(reading, b"parent again") == [b"parent", b"child", b"parent again"]


def test_what_python_prints_comes_in_whole_lines(pipe):
    """Also if two threads print at the same time."""
    reading, writing = pipe
    stream = LineStream(LogWriter(writing), writing)
    stream.write("half a ")
    other = threading.Thread(target=lambda: stream.write("another\n"))
    other.start()
    other.join()
    stream.write("line\nand an end")
    stream.flush()

    assert os.read(reading, 1000) == b"another\nhalf a line\nand an end"


CLOSED_STDERR = """
import os, sys
from chainbench_agent.logs.entries import log_to_stderr
log_to_stderr("info")
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(2, b"printed by a library")
print("a warning", file=sys.stderr)
print(fd)
"""


def test_a_file_does_not_become_stderr(tmp_path):
    """If stderr is closed, the next file gets its number, and a library would print into the database."""
    shell = f'exec {sys.executable} -c "$0" {tmp_path}/file 2>&-'
    done = subprocess.run(["sh", "-c", shell, CLOSED_STDERR], stdout=subprocess.PIPE, text=True, check=True)

    assert int(done.stdout) > 2
    assert (tmp_path / "file").read_text() == ""
