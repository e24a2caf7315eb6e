"""The kernel's own counters, from a captured /proc/stat."""

import os

import pytest

from chainbench_agent.kernel.reading import proc_counters

STAT = """\
cpu  1000 20 300 50000 400 5 60 7 0 0
cpu0 500 10 150 25000 200 2 30 3 0 0
intr 83721 0 9 0
ctxt 1234567
btime 1795000000
processes 4321
procs_running 2
softirq 1 2 3
"""


VMSTAT = """\
nr_free_pages 7
pgalloc_dma 0
pgalloc_dma32 1000
pgalloc_normal 23
pgalloc_movable 0
pgfree 999
"""


@pytest.fixture
def proc(tmp_path, monkeypatch):
    def write(text, vmstat=None):
        (tmp_path / "stat").write_text(text)
        if vmstat is not None:
            (tmp_path / "vmstat").write_text(vmstat)
        monkeypatch.setattr(proc_counters, "STAT", tmp_path / "stat")
        monkeypatch.setattr(proc_counters, "VMSTAT", tmp_path / "vmstat")

    return write


def test_since_boot(proc):
    """Idle with iowait; on a CPU without what the hypervisor stole; in milliseconds."""
    proc(STAT, VMSTAT)
    tick_ms = 1000 // os.sysconf("SC_CLK_TCK")

    assert proc_counters.kernel_counters() == {
        "idle_ms": 50400 * tick_ms,
        "on_cpu_ms": 1385 * tick_ms,
        "context_switches": 1234567,
        "forks": 4321,
        "page_allocs": 1023,
    }


def test_a_kernel_that_keeps_less(proc):
    """Counters that the kernel lacks are left out."""
    proc("ctxt 7\n", "nr_free_pages 7\n")
    assert proc_counters.kernel_counters() == {"context_switches": 7}


def test_this_kernel():
    """All five, on whatever this runs on."""
    assert all(count > 0 for count in proc_counters.kernel_counters().values())
    assert len(proc_counters.kernel_counters()) == 5
