"""One series each for how the cost grows with the rate of events, live threads, the length of a run and CPUs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.accounts import Floor, Meter, descriptors, tree
from bench.subjects import LABELS, Agent
from bench.workloads import LOADS

RATES = (1_000, 10_000, 100_000, 1_000_000)
THREADS = (10, 100, 1_000, 10_000)
LENGTHS_S = (1, 3, 10, 30)
CPUS = (1, 2, 8, 32, 128, 256)
PER_CPU_MAPS = ("5", "6", "10")  # BPF_MAP_TYPE_PERCPU_HASH, _ARRAY, _LRU_PERCPU_HASH
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Series:
    """One chart: `points` are (x, y); `shape`: flat or linear, in words."""

    name: str
    title: str
    x: str
    y: str
    shape: str
    points: Sequence[tuple[float, float]]


def measure(agent: Agent, seconds: float) -> Iterator[Series]:
    yield _by_rate(agent, seconds)
    yield from _by_threads(agent, seconds)
    yield _by_length(agent, seconds)
    yield _by_cpus(agent)


def _load(name: str, *arguments: object) -> subprocess.Popen[str]:
    """A load that prints a line when it is ready and then goes on until its input ends."""
    command = [sys.executable, "-IS", str(LOADS / f"{name}.py"), *map(str, arguments)]
    load = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if load.stdout is None or not load.stdout.readline():
        raise RuntimeError(f"{name} did not start")
    return load


def _by_rate(agent: Agent, seconds: float) -> Series:
    points = []
    with Floor(("sys_enter",)) as floor:
        for rate in RATES:
            load = _load("rate", rate)
            with agent.running() as pids:
                meter, began = Meter(floor, pids), time.monotonic()
                time.sleep(seconds)
                interval, took = meter.interval(), time.monotonic() - began
            load.communicate()
            spent = sum(account.ns for account in interval.programs.values())
            points.append((interval.events("sys_enter") / took, spent / took / 1e9 * 100))
    return Series("rate", "Time in BPF programs by system calls a second, everything on", "system calls/s",
                  "% of one CPU", "linear", points)  # fmt: skip


def _by_threads(agent: Agent, seconds: float) -> Iterator[Series]:
    costs, stops = [], []
    with Floor(("sched_switch",)) as floor:
        for threads in THREADS:
            load = _load("threads", threads)
            agent.client.start(LABELS, pid=load.pid, probes=["runqlat", "offcpu", "cpu"])
            meter = Meter(floor, [agent.process.pid])
            time.sleep(seconds)
            interval, began = meter.interval(), time.perf_counter()
            agent.client.stop()
            stops.append((threads, 1000 * (time.perf_counter() - began)))
            costs.append((threads, interval.net_ns("sched_") / interval.events("sched_switch")))
            load.communicate()
    yield Series("threads", "Net BPF time of a context switch by live threads of the target", "threads",
                 "ns", "flat, but for what the CPU's caches hold", costs)  # fmt: skip
    yield Series("stop", "/stop by live threads of the target", "threads", "ms", "linear: each is in the ledger", stops)


def _by_length(agent: Agent, seconds: float) -> Series:
    """Every second of a run starts up to 100 programs, each of which has a record, while there are records."""
    points = []
    for length in (length * seconds for length in LENGTHS_S):
        agent.client.start(LABELS)
        end = time.monotonic() + length
        while time.monotonic() < end:
            subprocess.run(["true"], check=True)
            time.sleep(0.01)
        began = time.perf_counter()
        agent.client.stop()
        points.append((length, 1000 * (time.perf_counter() - began)))
    return Series("length", "/stop by the length of the run", "s", "ms",
                  "it rises with the processes of the run until all 4,096 records are taken, and is flat from there",
                  points)  # fmt: skip


def _by_cpus(agent: Agent) -> Series:
    """On paper: the maps that are per CPU, times the CPUs."""
    infos = [info for pid in tree(agent.process.pid) for info in descriptors(pid) if "map_id" in info]
    maps = {info["map_id"]: (info["map_type"] in PER_CPU_MAPS, int(info["memlock"])) for info in infos}
    here = _possible_cpus()
    shared = sum(size for per_cpu, size in maps.values() if not per_cpu)
    each = sum(size for per_cpu, size in maps.values() if per_cpu) / here
    points = [(cpus, (shared + each * cpus) / MB) for cpus in CPUS]
    return Series("cpus", "Kernel memory of the maps by CPUs, on paper", "CPUs", "MB",
                  f"linear: {each / MB:.2f} MB for each", points)  # fmt: skip


def _possible_cpus() -> int:
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().replace(",", "-").split("-")[-1]
    return int(last) + 1
