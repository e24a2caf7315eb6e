"""Names of addresses in user space, of living and ended processes."""

import ctypes
import os
from pathlib import Path

import pytest

from chainbench_agent.symbols.file_mappings import read_mappings
from chainbench_agent.symbols.mapping_events import MappingHistory
from chainbench_agent.symbols.user_symbols import UserSymbols

GONE = 1 << 22
"""A number that no process has."""


@pytest.fixture
def lock():
    """The address of pthread_mutex_lock in our own library."""
    return ctypes.cast(ctypes.CDLL(None).pthread_mutex_lock, ctypes.c_void_p).value


@pytest.fixture
def libc():
    (name,) = {Path(m.path).name for m in read_mappings(os.getpid()) if Path(m.path).name.startswith("libc.so")}
    return name


def test_an_address_in_a_living_process_has_one_of_the_functions_names(lock, libc):
    name = UserSymbols({}, MappingHistory()).name_of(os.getpid(), lock + 5)

    assert name.endswith(f"pthread_mutex_lock+0x5 [{libc}]")


def test_an_address_in_an_ended_process_has_a_name(lock, libc):
    """By its mappings at the start of the run, or by later events.  The file is found by its path."""
    ours = read_mappings(os.getpid())
    for stacks in (UserSymbols({GONE: ours}, MappingHistory()), UserSymbols({}, MappingHistory({GONE: ours}))):
        assert stacks.name_of(GONE, lock).endswith(f"pthread_mutex_lock+0x0 [{libc}]")
    assert UserSymbols({}, MappingHistory()).name_of(GONE, lock) == f"{lock:#x}"


def test_another_file_at_the_path_is_not_read(lock, libc):
    """Its functions are not those that ran: the name is only the file and the offset."""
    ours = tuple(mapping._replace(inode=mapping.inode + 1) for mapping in read_mappings(os.getpid()))
    gone = tuple(mapping._replace(path="/gone/libc.so.6 (deleted)") for mapping in read_mappings(os.getpid()))
    (found,) = (m for m in ours if m.start <= lock < m.end)
    offset = lock - found.start + found.offset

    assert UserSymbols({GONE: ours}, MappingHistory()).name_of(GONE, lock) == f"{libc}+{offset:#x}"
    assert UserSymbols({GONE: gone}, MappingHistory()).name_of(GONE, lock) == f"libc.so.6+{offset:#x}"


def test_the_caller_that_the_kernel_misses_is_added_once():
    """A function that was just entered has no frame.  Newer kernels find its caller as well."""
    stacks = UserSymbols({}, MappingHistory())

    assert stacks.stack(GONE, 0x20, (0x10, 0x30, 0x40)) == ("0x20", "0x30", "0x40")
    assert stacks.stack(GONE, 0x20, (0x10, 0x20, 0x30)) == ("0x20", "0x30")
    assert stacks.stack(GONE, 0x20, ()) == ("0x20",)
    assert stacks.stack(GONE, 0, ()) == ()
