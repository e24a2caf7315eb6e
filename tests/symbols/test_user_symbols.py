"""Addresses of user space by name, of processes that live and of those that have ended."""

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
    """Where our own library has pthread_mutex_lock."""
    return ctypes.cast(ctypes.CDLL(None).pthread_mutex_lock, ctypes.c_void_p).value


@pytest.fixture
def libc():
    (name,) = {Path(m.path).name for m in read_mappings(os.getpid()) if Path(m.path).name.startswith("libc.so")}
    return name


def test_a_process_that_lives(lock, libc):
    """One of the names that the function has."""
    name = UserSymbols({}, MappingHistory()).name_of(os.getpid(), lock + 5)

    assert name.endswith(f"pthread_mutex_lock+0x5 [{libc}]")


def test_one_that_has_ended(lock, libc):
    """By what it had at the beginning, or by what happened since; the file is found by its path."""
    ours = read_mappings(os.getpid())
    for stacks in (UserSymbols({GONE: ours}, MappingHistory()), UserSymbols({}, MappingHistory({GONE: ours}))):
        assert stacks.name_of(GONE, lock).endswith(f"pthread_mutex_lock+0x0 [{libc}]")
    assert UserSymbols({}, MappingHistory()).name_of(GONE, lock) == f"{lock:#x}"


def test_another_file_at_the_path(lock, libc):
    """Its functions are not those that ran: then only the place in the file is told."""
    ours = tuple(mapping._replace(inode=mapping.inode + 1) for mapping in read_mappings(os.getpid()))
    gone = tuple(mapping._replace(path="/gone/libc.so.6 (deleted)") for mapping in read_mappings(os.getpid()))
    (found,) = (m for m in ours if m.start <= lock < m.end)
    offset = lock - found.start + found.offset

    assert UserSymbols({GONE: ours}, MappingHistory()).name_of(GONE, lock) == f"{libc}+{offset:#x}"
    assert UserSymbols({GONE: gone}, MappingHistory()).name_of(GONE, lock) == f"libc.so.6+{offset:#x}"


def test_the_caller_that_the_kernel_leaves_out():
    """A function that was just entered has no frame; newer kernels see its caller as well, and then it is not twice."""
    stacks = UserSymbols({}, MappingHistory())

    assert stacks.stack(GONE, 0x20, (0x10, 0x30, 0x40)) == ("0x20", "0x30", "0x40")
    assert stacks.stack(GONE, 0x20, (0x10, 0x20, 0x30)) == ("0x20", "0x30")
    assert stacks.stack(GONE, 0x20, ()) == ("0x20",)
    assert stacks.stack(GONE, 0, ()) == ()
