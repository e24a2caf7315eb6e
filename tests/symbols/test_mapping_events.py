"""The records of mappings and forks that perf writes, and what the agent makes of them."""

import mmap
import os
import struct
import subprocess
from pathlib import Path

import pytest

from chainbench_agent.symbols import mapping_events
from chainbench_agent.symbols.file_mappings import FileMapping
from chainbench_agent.symbols.mapping_events import MappingEvents, MappingHistory, mapping_history

LOST = struct.pack("=IHHQQ", 2, 0, 24, 0, 7)


def fork(child, parent, thread=None):
    return struct.pack("=IHHIIIIQ", 7, 0, 32, child, parent, thread or child, parent, 1000)


def mapped(pid, start, path, offset=0):
    name = path.encode() + b"\0" * (8 - len(path) % 8)
    body = struct.pack("=IIQQQIIQQII", pid, pid, start, 0x1000, offset, 8, 1, 5, 0, 5, 2)
    return struct.pack("=IHH", 10, 0, 8 + len(body) + len(name)) + body + name


def ring(*records):
    """Memory as perf writes it: a first page with the size of the records, then the records."""
    written = b"".join(records)
    page = struct.pack(f"=1024xQ{mmap.PAGESIZE - 1032}x", len(written))
    return page + written + bytes(mmap.PAGESIZE)


def test_records_of_all_rings_are_decoded():
    """Other records are skipped, and mappings without a file."""
    found = mapping_history(
        [
            ring(fork(20, 10), LOST, mapped(20, 0x1000, "/bin/a"), mapped(20, 0x9000, "[vdso]")),
            ring(mapped(20, 0x5000, "//anon"), mapped(20, 0x2000, "/lib/b", offset=0x800), fork(20, 20, 21)),
        ]
    )

    assert found.parents == {20: 10}
    device = os.makedev(8, 1)
    assert found.mapped == {
        20: (
            FileMapping(0x2000, 0x3000, 0x800, device, 5, "/lib/b"),
            FileMapping(0x1000, 0x2000, 0, device, 5, "/bin/a"),
        )
    }


def test_empty_rings_have_no_records():
    assert mapping_history([ring(), ring()]) == MappingHistory()


def test_a_process_has_its_own_mappings_and_those_of_its_parents():
    """The newest come first.  A circle of parents ends."""
    own, before, inherited = (FileMapping(n, n + 1, 0, 0, 0, "") for n in range(3))
    found = MappingHistory({20: (own,), 10: (inherited,)}, {20: 10, 10: 20})

    assert found.of(20, {20: (before,)}) == (own, before, inherited)
    assert found.of(99, {}) == ()


@pytest.mark.bpf
def test_the_mappings_and_the_parent_of_an_ended_process_are_known():
    """Opening again starts with no records."""
    events = MappingEvents()
    assert not events
    for _ in range(2):
        events.open()
        with subprocess.Popen(["/bin/true"]) as child:
            child.wait()
        found = events.read()
        names = {Path(mapping.path).name for mapping in found.mapped[child.pid]}
        assert {"true", "libc.so.6"} <= names
        events.close()
    assert not events


def test_a_failed_open_closes_everything(monkeypatch):

    def refuse(*_kind, cpu, **_how):
        if cpu:
            raise PermissionError(13, "Permission denied")
        return os.open(os.devnull, os.O_RDONLY)

    monkeypatch.setattr(mapping_events.perf_events, "open_event", refuse)
    monkeypatch.setattr(mapping_events.perf_events, "online_cpus", lambda: (0, 1))
    memory = mmap.mmap(-1, 4096)
    monkeypatch.setattr(mapping_events.mmap, "mmap", lambda _fd, _size: memory)
    events = MappingEvents()
    with pytest.raises(PermissionError):
        events.open()
    assert not events
