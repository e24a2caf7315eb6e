"""The demo: a real workload, measured as a benchmark runner would, shown side by side."""

import re
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from chainbench_agent.collector.mock import MockCollector
from chainbench_agent.commands import demo
from chainbench_agent.commands.demo_table import side_by_side
from chainbench_agent.errors import AgentError
from chainbench_agent.evidence.model import Evidence, Run
from chainbench_agent.probes import CATALOG

RUN = Run(id="1", machine="host", started_at=datetime(2026, 1, 1, tzinfo=UTC), duration_ms=200, ended_by="stop")


def evidence(ledger, **sections):
    run, target = RUN.model_dump(mode="json"), {"kind": "pid", "pid": 7}
    ledger = {"on_cpu_ms": 0.0, "runnable_ms": 0.0, "unexplained_ms": 0.0, "wall_ms": 180.0, "blocked_ms": 0.0} | ledger
    head = {"available": True, "source": "ebpf", "run": run, "target": target, "ledger": ledger}
    return Evidence.from_json(head | sections)


def latency(median_us, longest_us):
    """Nine short waits and a long one."""
    histogram = [{"bucket_us": median_us, "count": 9}, {"bucket_us": longest_us, "count": 1}]
    total = {"count": 10, "sum_us": 9 * median_us + longest_us}
    return {"histogram": histogram, **total, "min_us": median_us, "max_us": longest_us}


BASELINE = evidence(
    {
        "on_cpu_ms": 90.0,
        "runnable_ms": 3.5,
        "unexplained_ms": 0.5,
        "blocked": [
            {
                "category": "disk",
                "ms": 71.0,
                "reasons": [
                    {"reason": "io_schedule", "syscall": "fsync", "ms": 69.0},
                    {"reason": "io_schedule", "syscall": "read", "ms": 2.0},
                ],
            },
            {"category": "wait_child", "ms": 15.0, "reasons": [{"reason": "do_wait", "ms": 15.0}]},
        ],
    },
    exec={"exec_count": 13},
    runqlat=latency(2.04, 50.0),
    syscall_counts={
        "total": 39301,
        "fsync": 600,
        "read": 38694,
        "futex": 7,
        "sources": {"read": "raw_tracepoint"},
    },
)
OPTIMIZED = evidence(
    {
        "on_cpu_ms": 30.0,
        "runnable_ms": 0.5,
        "blocked": [{"category": "disk", "ms": 10.0, "reasons": []}, {"category": "sleep", "ms": 4.5, "reasons": []}],
    },
    exec={"exec_count": 2},
    runqlat=latency(0.0, 0.0),
    syscall_counts={"total": 194, "fsync": 1, "read": 186, "futex": 7},
)
MOCK = MockCollector("no BTF", "", CATALOG).evidence(RUN)


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
    assert table["block I/O, requests"] == ["-", "-"]
    assert table["system calls"] == ["39,301", "194", "202.6 x"]
    assert table["flushes (fsync)"] == ["600", "1", "600.0 x"]
    assert table["system call read"] == ["38,694", "186", "208.0 x"]
    assert "system call fsync" not in table
    assert "system call sources" not in table


def test_where_the_time_went():
    """Every part that lasted a millisecond, and the sum of all; what only one of them has is zero in the other."""
    table = rows(side_by_side(BASELINE, OPTIMIZED, 180.04, 45.01))

    assert table["on a CPU"] == ["90.0", "30.0", "3.0 x"]
    assert table["blocked: disk"] == ["71.0", "10.0", "7.1 x"]
    assert table["blocked: wait_child"] == ["15.0", "0.0"]
    assert table["blocked: sleep"] == ["0.0", "4.5"]
    assert table["time of all its threads (ms)"] == ["180.0", "45.0", "4.0 x"]
    assert "unexplained" not in table


def test_why_it_is_faster():
    """The states in which it spent less time, the largest first, with function and system call."""
    answer = side_by_side(BASELINE, OPTIMIZED, 180.04, 45.01).splitlines()[-1]

    assert answer == (
        "Its threads took 135.0 ms less: 61.0 blocked: disk (io_schedule in fsync), 60.0 on a CPU, "
        "15.0 blocked: wait_child (do_wait)."
    )
    assert "less" not in side_by_side(BASELINE, BASELINE, 2, 2)


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
        done = subprocess.run(command, input=b"go\n", capture_output=True, check=True)
        lengths.append(int(done.stdout.split()[1]))

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
    """Each flush and each program of the workload is in the evidence, and nobody else's; the ledger says why."""
    monkeypatch.setenv("CHAINBENCH_BACKEND", "ebpf")
    text = demo.run_demo()

    assert text.startswith("Measured with eBPF")
    table = rows(text)
    assert table["flushes (fsync)"] == ["600", "1", "600.0 x"]
    assert table["programs started"] == ["12", "1", "12.0 x"]
    assert "blocked: disk" in table
    assert re.search(r"Its threads took [\d,.]+ ms less: .*\(\w+ in fsync\)", text)


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
