"""The demo: a real workload, measured as a benchmark runner would, shown side by side."""

import re
import subprocess
import sys

import pytest

from chainbench_agent import demo
from chainbench_agent.demo_table import side_by_side
from chainbench_agent.errors import AgentError

BASELINE = {
    "available": True,
    "exec": {"exec_count": 13},
    "runqlat": {"p50_us": 2.04, "p95_us": 50.0},
    "offcpu": {
        "total_ms": 1191.6,
        "top_reasons": [
            {"reason": "io_schedule", "syscall": "fsync", "ms": 30.0},
            {"reason": "io_schedule", "syscall": "read", "ms": 8.0},
            {"reason": "do_wait", "syscall": "wait4", "ms": 5.0},
        ],
    },
    "syscall_counts": {"fsync": 600, "read": 38694, "futex": 7, "sources": {"read": "raw_tracepoint:sys_enter"}},
}
OPTIMIZED = {
    "available": True,
    "exec": {"exec_count": 2},
    "runqlat": {"p50_us": 0.0, "p95_us": 25.0},
    "offcpu": {"total_ms": 0.0, "top_reasons": []},
    "syscall_counts": {"fsync": 1, "read": 186, "futex": 7},
}
MOCK = {"available": False, "reason": "no BTF"}


def rows(text):
    """Name → cells of the table."""
    lines = text[text.index("wall time") :].splitlines()
    return {cells[0].strip(): cells[1:] for cells in (re.split(r"\s{2,}", line.lstrip()) for line in lines)}


def test_the_table():
    """Both numbers and their ratio; no ratio to zero, and no number where there is none."""
    table = rows(side_by_side(BASELINE, OPTIMIZED, 180.04, 45.01))

    assert table["wall time of the workload (ms)"] == ["180.0", "45.0", "4.0 x"]
    assert table["programs started"] == ["13", "2", "6.5 x"]
    assert table["run-queue latency, median (µs)"] == ["2.0", "0.0"]
    assert table["off-CPU time, all threads (ms)"] == ["1,191.6", "0.0"]
    assert table["block I/O, requests"] == ["-", "-"]
    assert table["io_schedule"] == ["38.0", "-"]
    assert table["flushes (fsync)"] == ["600", "1", "600.0 x"]
    assert table["system call read"] == ["38,694", "186", "208.0 x"]
    assert "system call fsync" not in table
    assert "system call sources" not in table


def test_the_columns_are_aligned():
    lines = side_by_side(BASELINE, OPTIMIZED, 180.04, 45.01).splitlines()[2:]

    assert len({len(line) for line in lines if line.endswith((" x", "ratio"))}) == 1


def test_the_heading_says_what_the_numbers_are():
    assert side_by_side(BASELINE, OPTIMIZED, 2, 1).startswith("Measured with eBPF")
    assert side_by_side(MOCK, MOCK, 2, 1).startswith("MOCK DATA: ")
    assert "\nno BTF\n" in side_by_side(MOCK, MOCK, 2, 1)


def test_both_variants_do_the_same(tmp_path):
    """Otherwise the comparison would be worth nothing."""
    lengths = []
    for variant in ("baseline", "optimized"):
        command = [sys.executable, str(demo.WORKLOAD), variant, str(tmp_path / variant)]
        lengths.append(int(subprocess.run(command, capture_output=True, check=True).stdout))

    assert lengths[0] == lengths[1] > 0
    assert (tmp_path / "baseline").read_bytes() == (tmp_path / "optimized").read_bytes()


def test_the_whole_demo_with_mock_data(monkeypatch):
    monkeypatch.setenv("CHAINBENCH_BACKEND", "mock")
    text = demo.run_demo()

    assert text.startswith("MOCK DATA: ")
    assert len(rows(text)["wall time of the workload (ms)"]) == 3


@pytest.mark.portable
@pytest.mark.bpf
def test_the_whole_demo(monkeypatch):
    """Each flush and each program of the workload is in the evidence."""
    monkeypatch.setenv("CHAINBENCH_BACKEND", "ebpf")
    text = demo.run_demo()

    assert text.startswith("Measured with eBPF")
    table = rows(text)
    for name, least in (("flushes (fsync)", (600, 1)), ("programs started", (13, 2))):
        baseline, optimized, _ = table[name]
        assert int(baseline) >= least[0], name
        assert int(optimized) >= least[1], name


def test_an_agent_that_does_not_start(monkeypatch):
    """Its own words say why."""
    monkeypatch.setenv("CHAINBENCH_PROBES", "memry")

    with pytest.raises(AgentError, match=r"(?s)the agent did not start:.*there is no module memry"):
        demo.run_demo()


def test_a_workload_that_fails(monkeypatch, tmp_path):
    workload = tmp_path / "workload.py"
    workload.write_text("raise SystemExit('disk full')")
    monkeypatch.setattr(demo, "WORKLOAD", workload)
    monkeypatch.setenv("CHAINBENCH_BACKEND", "mock")

    with pytest.raises(AgentError, match="the workload failed: disk full"):
        demo.run_demo()
