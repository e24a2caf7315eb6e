"""The daemon itself: how soon it is ready, how fast it answers, what it takes in memory."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from bench.accounts import descriptors, map_bytes_of, tree
from bench.numbers import Figure, Row, percentile, shown
from bench.subjects import LABELS, Agent, Peers, Tool, agent, left_out
from chainbench_agent.kernel.machine import Machine
from chainbench_agent.kernel.targets.kernel_target import KernelTarget
from chainbench_agent.probes import CATALOG, HOOKS

SECTION = "The daemon"
MB = 1_000_000
TEN = ("runqlat", "syscount", "softirqs", "hardirqs", "exitsnoop", "runqslower", "wakeuptime", "tcpstates", "tcplife",
       "biopattern")  # fmt: skip
"""BCC's tools that need no kprobe."""
FIVE = TEN[:5]


def measure(peers: Peers, cache: Path, rounds: int, requests_made: int) -> Iterator[Row]:
    yield from _start_up(peers, rounds)
    with agent(cache) as ours:
        yield _memory(ours, peers, "after start-up", 70)
        yield from _answers(ours, requests_made)
        yield _memory(ours, peers, f"after {requests_made} runs", 70, with_peers=False)
        yield _maps(ours)
        yield _between_runs(ours)
        yield _scrapes(ours, requests_made)
    yield _sampling(cache, requests_made)


def _start_up(peers: Peers, rounds: int) -> Iterator[Row]:
    absent: dict[str, str] = {}
    ten: list[float] = []
    for _ in range(rounds):
        for tool in (peers.bcc(name) for name in TEN):
            with left_out(tool, absent), tool.running():
                pass
        present = [peers.bcc(name) for name in TEN if peers.bcc(name).name not in absent]
        with _all_running(present) as took:
            ten.append(took)
    theirs = {f"BCC: {len(TEN) - len(absent)} tools": Figure.of(ten)}
    cold, warm = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as fresh:
            cold.append(_ready_after(Path(fresh)))
            warm.append(_ready_after(Path(fresh)))
    note = "; ".join(f"no {name}: {why}" for name, why in absent.items())
    yield Row(
        SECTION, "start-up until the first answer", "s", Figure.of(cold), 2.5, theirs, below_peers=True, note=note
    )
    yield Row(SECTION, "the same with a warm cache", "s", Figure.of(warm), 1.5, theirs, below_peers=True)


def _ready_after(cache: Path) -> float:
    began = time.perf_counter()
    with agent(cache):
        return time.perf_counter() - began


@contextmanager
def _all_running(tools: Sequence[Tool]) -> Iterator[float]:
    """Tools that are started at the same time; the answer is when the last one was ready, in seconds."""
    with ExitStack() as stack, ThreadPoolExecutor(len(tools)) as pool:
        began = time.perf_counter()
        running = [tool.running() for tool in tools]
        list(pool.map(lambda one: one.__enter__(), running))
        took = time.perf_counter() - began
        for one in running:
            stack.push(one.__exit__)
        yield took - max(tool.settle_s for tool in tools)


def _memory(ours: Agent, peers: Peers, when: str, reach: float, *, with_peers: bool = True) -> Row:
    theirs = {}
    absent: dict[str, str] = {}
    for name, tool_of in (("BCC", peers.bcc), ("libbpf-tools", peers.libbpf_tools)) if with_peers else ():
        sizes = []
        for tool in map(tool_of, FIVE):
            with left_out(tool, absent), tool.running() as pids:
                sizes.append(_pss_mb(pids))
        theirs[f"{name}: {len(sizes)}, one at a time"] = Figure.of([sum(sizes)])
    note = "libbpf-tools are C programs without histograms by name and without an HTTP API" if with_peers else ""
    return Row(SECTION, f"PSS of all its processes, {when}", "MB", Figure.of([_pss_mb([ours.process.pid])]), reach,
               theirs, note=note)  # fmt: skip


def _pss_mb(pids: Sequence[int]) -> float:
    rollups = (Path(f"/proc/{each}/smaps_rollup").read_text() for pid in pids for each in tree(pid))
    return sum(int(re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)[0]) for text in rollups) * 1024 / MB


def _maps(ours: Agent) -> Row:
    return Row(SECTION, "kernel memory of its maps", "MB", Figure.of([map_bytes_of(tree(ours.process.pid)) / MB]), 16)


def _between_runs(ours: Agent) -> Row:
    infos = chain.from_iterable(map(descriptors, tree(ours.process.pid)))
    attached = sum("link_type" in info for info in infos)
    return Row(SECTION, "programs attached between runs", "", Figure.of([attached]), 0)


def _answers(ours: Agent, times: int) -> Iterator[Row]:
    """Each run has a label set of its own; the agent remembers the last 100."""
    starts, stops = [], []
    for number in range(times):
        starts.append(_ms(lambda: ours.client.start(LABELS | {"commit": f"{number}"})))  # noqa: B023 - called at once
        stops.append(_ms(ours.client.stop))
    for path, found in (("/start", starts), ("/stop", stops)):
        yield Row(SECTION, f"{path} of all modules, p99 of {times}", "ms", _tail(found), 100, note=_median(found))


def _scrapes(ours: Agent, times: int) -> Row:
    text = ours.client.metrics()
    took = [_ms(lambda: _scrape(ours.client.url)) for _ in range(times)]
    plain = CollectorRegistry()
    plain.register(_Families(list(text_string_to_metric_families(text))))
    theirs = [_ms(lambda: generate_latest(plain)) for _ in range(max(3, times // 10))]
    note = f"{text.count(chr(10)):,} lines of {min(times, 100)} stored runs; {_median(took)}; theirs without HTTP"
    return Row(SECTION, f"/metrics, p99 of {times}", "ms", _tail(took), 15,
               {"only prometheus_client": _tail(theirs)}, below_peers=True, note=note)  # fmt: skip


def _scrape(url: str) -> None:
    """As a scraper does; requests would take as long again for 8 MB."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request("GET", "/metrics")
    connection.getresponse().read()
    connection.close()


class _Families(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


def _sampling(cache: Path, times: int) -> Row:
    """In this process, because nothing outside sees it: how long all maps take to be read."""
    machine = Machine(CATALOG, HOOKS, cache)
    machine.attach(KernelTarget())
    machine.begin()
    took = [_ms(machine.sample) for _ in range(times)]
    machine.end()
    machine.close()
    return Row(SECTION, f"a sample of all modules, p99 of {times}", "ms", _tail(took), 10, note=_median(took))


def _ms(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)


def _tail(values: Sequence[float]) -> Figure:
    """The 99th percentile, between the median and the worst."""
    return Figure(percentile(values, 99), percentile(values, 50), max(values), len(values))


def _median(values: Sequence[float]) -> str:
    return f"median {shown(percentile(values, 50))} ms"
