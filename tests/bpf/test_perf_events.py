"""Perf events: which CPUs they are opened on, and what happens if one cannot be opened."""

import mmap
import os

import pytest

from chainbench_agent.bpf import perf_events
from chainbench_agent.bpf.perf_events import SOFTWARE, all_or_none, online_cpus, open_event, open_kprobe

PAGE_FAULTS = 2  # PERF_COUNT_SW_PAGE_FAULTS


@pytest.mark.parametrize(("text", "cpus"), [("0\n", (0,)), ("0-3,6\n", (0, 1, 2, 3, 6)), ("1,8-9\n", (1, 8, 9))])
def test_the_list_of_cpus_may_have_gaps(tmp_path, monkeypatch, text, cpus):
    (tmp_path / "online").write_text(text)
    monkeypatch.setattr(perf_events, "ONLINE", tmp_path / "online")

    assert online_cpus.__wrapped__() == cpus


def test_all_descriptors_are_closed_if_one_cannot_be_opened():
    closed = []

    def opening():
        yield 3
        yield 4
        raise OSError(24, "Too many open files")

    with pytest.raises(OSError, match="Too many open files"):
        all_or_none(opening(), closed.append)
    assert closed == [3, 4]
    assert all_or_none(iter((5, 6)), closed.append) == [5, 6]
    assert closed == [3, 4]


def test_a_kernel_without_kprobes_has_that_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(perf_events, "DEVICES", tmp_path)

    with pytest.raises(OSError, match="this kernel has no kprobes"):
        open_kprobe("down", 7, at_return=False)


def test_an_architecture_without_a_known_number_has_that_reason(monkeypatch):
    monkeypatch.setattr(perf_events, "_SYSCALL", {})

    with pytest.raises(OSError, match="perf_event_open is not known on"):
        open_event(SOFTWARE, PAGE_FAULTS, cpu=-1, pid=0)


@pytest.mark.bpf
def test_an_open_counter_counts():
    """A page that is written for the first time is a page fault of this process."""
    fd = open_event(SOFTWARE, PAGE_FAULTS, cpu=-1, pid=0)
    before = int.from_bytes(os.read(fd, 8), "little")
    with mmap.mmap(-1, 101 * 4096) as memory:
        for page in range(101):
            memory[page * 4096] = 1
    after = int.from_bytes(os.read(fd, 8), "little")
    os.close(fd)

    assert after - before >= 101
