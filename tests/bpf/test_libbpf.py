"""Calls of libbpf: errors of both versions, and maps of this kernel."""

import errno
import os

import pytest

from chainbench_agent.bpf import libbpf

HASH, ARRAY = 1, 2  # enum bpf_map_type
MMAPABLE = 1 << 10  # BPF_F_MMAPABLE


@pytest.fixture
def make_map():
    """`make_map(kind, key_size, value_size, entries, flags)` returns a descriptor, which is closed after the test."""
    fds = []

    def make(kind, *sizes, flags=0):
        fds.append(libbpf.create_map("test", kind, sizes, flags))
        return fds[-1]

    yield make
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize(("result", "code"), [(-errno.EPERM, 0), (-1, errno.EPERM)], ids=["libbpf 1", "libbpf 0"])
def test_an_error_has_the_number_of_the_kernel(monkeypatch, result, code):
    """Libbpf 1 returns it, libbpf 0 returned -1 and set errno."""
    monkeypatch.setattr(libbpf.ctypes, "get_errno", lambda: code)

    with pytest.raises(OSError, match="create map x: Operation not permitted") as caught:
        libbpf._checked(result, "create map x")
    assert caught.value.errno == errno.EPERM


def test_a_missing_library_is_reported_with_its_package(monkeypatch):
    def missing(*_, **__):
        raise OSError

    monkeypatch.setattr(libbpf.ctypes, "CDLL", missing)
    monkeypatch.setattr(libbpf, "_library", libbpf._library.__wrapped__)

    with pytest.raises(OSError, match="apt install python3-bpfcc"):
        libbpf.library_name()


@pytest.mark.bpf
def test_an_array_is_written_and_read(make_map):
    table = make_map(ARRAY, 4, 8, 3, flags=MMAPABLE)
    libbpf.update(table, 1, (53).to_bytes(8, "little"))

    assert libbpf.lookup(table, 1, 8) == (53).to_bytes(8, "little")
    assert libbpf.read_array(table, 24) == bytes(8) + (53).to_bytes(8, "little") + bytes(8)
    libbpf.clear_array(table, 24)
    assert libbpf.read_array(table, 24) == bytes(24)


@pytest.mark.bpf
def test_all_entries_of_a_hash_are_read(make_map):
    """In several batches, and also if there is none."""
    table = make_map(HASH, 4, 8, 2 * libbpf.BATCH)
    entries = {number.to_bytes(4, "little"): number.to_bytes(8, "little") for number in range(libbpf.BATCH + 53)}

    assert libbpf.items(table, 4, 8) == {}
    assert libbpf.keys(table, 4) == []
    for key, value in entries.items():
        libbpf.update(table, int.from_bytes(key, "little"), value)
    assert libbpf.items(table, 4, 8) == entries
    assert set(libbpf.keys(table, 4)) == entries.keys()


@pytest.mark.bpf
def test_a_key_that_is_not_there_may_be_deleted(make_map):
    table = make_map(HASH, 4, 8, 2)
    libbpf.update(table, 7, bytes(8))
    for _ in range(2):
        libbpf.delete(table, (7).to_bytes(4, "little"))

    assert libbpf.keys(table, 4) == []
