"""The error of quantiles: real run-queue latencies, each recorded, compared with a histogram of them."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.numbers import Figure, Row, percentile
from bench.workloads import WORKLOADS
from chainbench_agent.abi.histogram import QUANTILES, quantile_ns, slot_of
from chainbench_agent.catalog import HISTOGRAM_SLOTS
from chainbench_agent.headers.btf import Btf
from chainbench_agent.headers.header_tree import cached_tree

SECTION = "Exactness"
STREAM = Path(__file__).parents[1] / "tests/measured/stream_latencies.py"
LOADS = ("hackbench", "pipe", "exec")


def measure(cache: Path, share: float) -> Iterator[Row]:
    """The largest error of p50, p95 and p99 under several loads, in percent of the exact value."""
    ours, theirs, notes = [], [], []
    for load in LOADS:
        latencies = _latencies(cache, load, share)
        exact = [percentile(latencies, 100 * q) for q in QUANTILES]
        ours += _errors(exact, _of_slots(latencies))
        theirs += _errors(exact, _of_log2(latencies))
        notes.append(f"{load}: {len(latencies):,} latencies")
    bcc = {"BCC's log2, the upper end of the slot": Figure(max(theirs), min(theirs), max(theirs), len(theirs))}
    yield Row(SECTION, "quantile error of run-queue latency, the largest", "%",
              Figure(max(ours), min(ours), max(ours), len(ours)), 6, bcc, below_peers=True,
              note="; ".join(notes))  # fmt: skip


def _latencies(cache: Path, load: str, share: float) -> list[float]:
    """In nanoseconds, of the whole machine while the load runs, by a program that shares nothing with the agent."""
    tree = cached_tree(cache, Btf.load(), None, os.uname().release)
    with tempfile.TemporaryDirectory() as directory:
        ready = Path(directory) / "ready"
        environment = os.environ | {"BCC_KERNEL_SOURCE": str(tree)}
        stream = subprocess.Popen(
            [sys.executable, str(STREAM), "runq", str(ready)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=tree,
        )
        while not ready.exists():
            if stream.poll() is not None:
                raise RuntimeError(f"{STREAM.name} did not start")
            time.sleep(0.05)
        WORKLOADS[load].run(share)
        stream.send_signal(signal.SIGTERM)
        told, _ = stream.communicate(timeout=120)
    return [float(line.split()[1]) for line in told.splitlines()]


def _errors(exact: Sequence[float], found: Sequence[float]) -> list[float]:
    return [100 * abs(value - truth) / truth for value, truth in zip(found, exact, strict=True)]


def _of_slots(latencies: Sequence[float]) -> list[float]:
    tally = Counter(slot_of(int(ns)) for ns in latencies)
    slots = [tally[slot] for slot in range(HISTOGRAM_SLOTS)]
    return [quantile_ns(slots, q, int(min(latencies)), int(max(latencies))) for q in QUANTILES]


def _of_log2(latencies: Sequence[float]) -> list[float]:
    """As runqlat prints it: microseconds, by powers of two; the end of the line that the quantile is in."""
    return [1000.0 * (2 << int(math.log2(max(1.0, percentile(latencies, 100 * q) // 1000)))) for q in QUANTILES]
