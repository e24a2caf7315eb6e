"""Counts are exact at any rate and after any number of threads; losses are reported."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from emulation import SCALE

pytestmark = pytest.mark.bpf


def test_a_million_calls_are_counted_exactly(targeted):
    """A million writes of a byte, as fast as dd can."""
    count = 1_000_000 // SCALE
    code = f"import subprocess\nsubprocess.run('dd if=/dev/zero of=/dev/null bs=1 count={count} status=none'.split())"

    evidence = targeted(code).run()

    assert evidence["syscall_counts"]["write"] == count
    assert evidence["loss"]["causes"].get("keys_full", 0) == evidence["loss"]["causes"].get("programs_skipped", 0) == 0


def test_the_time_of_a_thread_after_many_others_is_right(targeted):
    """After 50,000 threads, which are all in the sum."""
    count = 50_000 // SCALE
    code = f"""
import threading, time
def many(n):
    for _ in range(n): t = threading.Thread(target=int); t.start(); t.join()
many({count})
t = threading.Thread(target=time.sleep, args=(1,), name="last"); t.start(); t.join()
"""
    evidence = targeted(code).run()

    ledger = evidence["ledger"]
    assert evidence["exec"]["threads_created"] == count + 1
    assert evidence["target"]["threads_seen"] == count + 2
    assert len(ledger["threads"]) + ledger["threads_not_shown"] == count + 2
    asleep = [c["ms"] for c in ledger["blocked"] if c["category"] == "sleep"]
    assert asleep == [pytest.approx(1000, rel=0.05)]
    # who is there for half of the run and does nothing would be one of the idle threads
    longest = [t for t in ledger["threads"] if any(c["category"] == "sleep" for c in t["blocked"])]
    assert longest[0]["blocked_ms"] == pytest.approx(1000, rel=0.05)
    assert abs(ledger["unexplained_ms"]) <= 0.01 * ledger["wall_ms"]
    assert "task_collisions" not in evidence["loss"]["causes"]


@pytest.mark.portable
def test_20000_processes_are_counted(targeted):
    """The sums are complete, and the evidence stays small."""
    count = 20_000 // SCALE
    code = f"import os\nfor _ in range({count}):\n pid = os.fork()\n if pid == 0: os._exit(0)\n os.waitpid(pid, 0)"

    evidence = targeted(code).run()

    assert evidence["exec"]["forks"] == count
    assert evidence["target"]["processes_seen"] == count + 1
    ledger = evidence["ledger"]
    assert len(ledger["threads"]) + ledger["threads_not_shown"] == count + 1
    assert abs(ledger["unexplained_ms"]) <= 0.01 * ledger["wall_ms"]
    assert len(json.dumps(evidence)) < 100_000


@pytest.mark.portable
def test_5000_living_threads_have_records_of_their_own(targeted):
    count = 5_000 // SCALE
    code = f"""
import threading
threading.stack_size(65536)
barrier = threading.Barrier({count} + 1)
threads = [threading.Thread(target=barrier.wait) for _ in range({count})]
for t in threads: t.start()
barrier.wait()
for t in threads: t.join()
"""
    evidence = targeted(code).run()

    assert evidence["target"]["threads_seen"] == count + 1
    assert "task_collisions" not in evidence["loss"]["causes"]
    assert abs(evidence["ledger"]["unexplained_ms"]) <= 0.01 * evidence["ledger"]["wall_ms"]


STREAM = Path(__file__).with_name("stream_latencies.py")


@pytest.fixture
def streamed(collector, tmp_path):
    """`streamed(kind, workload)`: every latency (µs) of `kind` meanwhile, from a separate BCC program."""
    environment = os.environ | {"BCC_KERNEL_SOURCE": str(collector._machine.unit.header_tree)}
    found, ready = tmp_path / "latencies", tmp_path / "ready"

    def during(kind, workload):
        command = [sys.executable, STREAM, kind, ready]
        with found.open("w") as output:
            child = subprocess.Popen(command, stdout=output, env=environment, cwd=environment["BCC_KERNEL_SOURCE"])
        try:
            while not ready.exists():
                assert child.poll() is None
                time.sleep(0.05)
            workload()
            time.sleep(0.3)
        finally:
            child.terminate()
            child.wait(20)
        ended = (map(int, line.split()) for line in found.read_text().splitlines())
        first_ns, last_ns = collector._first.at_ns, collector._last.at_ns
        return sorted(ns / 1000 for at_ns, ns in ended if first_ns <= at_ns <= last_ns)

    return during


def assert_within_6_percent(ours, exact):
    """Both saw the same events.  If one has events that the other lacks, the quantile may be off by as many ranks."""
    assert len(exact) == pytest.approx(ours["count"], rel=0.05)
    apart = abs(len(exact) - ours["count"])
    for key, q in (("p50_us", 0.5), ("p95_us", 0.95), ("p99_us", 0.99)):
        rank = math.ceil(q * len(exact)) - 1
        least, most = exact[rank - apart], exact[min(rank + apart, len(exact) - 1)]
        # the two programs of a hook run one after the other, so their clocks differ by some hundred nanoseconds
        assert 0.94 * least - 0.5 <= ours[key] <= 1.06 * most + 0.5, (key, apart)


@pytest.mark.portable
def test_quantiles_of_block_latency(streamed, measure, python, tmp_path):
    """Median, 95 % and 99 % are within 6 % of the exact ones of the same requests."""
    (tmp_path / "file").write_bytes(bytes(64 << 20))
    subprocess.run(["sync"], check=True)
    code = (
        f"import mmap, os\nfd = os.open({str(tmp_path / 'file')!r}, os.O_RDONLY | os.O_DIRECT)\n"
        "buffer = mmap.mmap(-1, 1 << 18)\nfor i in range(997): os.preadv(fd, [buffer], i % 256 << 18)"
    )
    evidence = {}

    exact = streamed("block", lambda: evidence.update(measure(lambda: python(code))))

    assert_within_6_percent(evidence["biolatency"], exact)


@pytest.mark.portable
def test_quantiles_of_run_queue_latency(streamed, measure):
    """Median, 95 % and 99 % are within 6 % of the exact ones of the same waits, on a crowded machine."""
    spin = "import time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass"
    sleep = "import time\nfor _ in range(400): time.sleep(0.002)"
    evidence = {}

    def crowd():
        for child in [subprocess.Popen([sys.executable, "-c", code]) for code in (spin, spin, spin, sleep, sleep)]:
            assert child.wait() == 0

    exact = streamed("runq", lambda: evidence.update(measure(crowd)))

    assert_within_6_percent(evidence["runqlat"], exact)
