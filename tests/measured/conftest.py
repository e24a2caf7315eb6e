"""Known workloads against this very kernel: a prime number of things happens, and the evidence must say so."""

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from chainbench_agent.collector.ebpf import EbpfCollector
from chainbench_agent.evidence.model import Run, Target
from chainbench_agent.plan import EVERYTHING
from chainbench_agent.probes import CATALOG, HOOKS

RUN = Run(id="test", machine="test", started_at=datetime(2026, 1, 1, tzinfo=UTC), duration_ms=0, ended_by="stop")


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("headers")


@pytest.fixture(scope="session")
def collector(cache_dir):
    """All modules with all options, loaded once; a run has an option only if it names it."""
    options = [name for module in CATALOG for name in module.names if name != module.name]
    collector = EbpfCollector(CATALOG, HOOKS, cache_dir, options)
    yield collector
    collector.close()


@pytest.fixture
def run():
    return RUN


@pytest.fixture
def measure(collector):
    """`measure(workload)` → the evidence, as JSON, of a run in which the workload ran once."""

    def during(workload):
        collector.start(Target())
        try:
            workload()
        finally:
            collector.stop()
        return collector.evidence(RUN).as_json()

    return during


class Targeted:
    """A Python process that makes ready, waits until the run is on, does its code as the target, and ends."""

    def __init__(self, collector, code, setup):
        self.collector = collector
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import sys\n{setup}\nprint(flush=True)\nsys.stdin.readline()\n{code}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.process.stdout.readline()  # it has started
        self.output = ""

    def run(self, target=None, plan=EVERYTHING):
        """The evidence, as JSON, of a run from before the first line of the code until the process has ended."""
        target = target or Target(kind="pid", pid=self.process.pid)
        self.collector.start(target, None, plan)
        try:
            self.output, _ = self.process.communicate("\n")
        finally:
            self.collector.stop()
        assert self.process.returncode == 0
        return self.collector.evidence(RUN).as_json()


@pytest.fixture
def targeted(collector):
    """`targeted(code)` → a process that is ready to run the code as a target; `setup`: what it has done before."""
    started = []

    def start(code, setup=""):
        started.append(Targeted(collector, code, setup))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        for pipe in (one.process.stdin, one.process.stdout):
            pipe.close()


@pytest.fixture
def noise():
    """Unrelated load on the machine: system calls, switches, processes, disk."""
    code = (
        "import os, subprocess, tempfile, time\nend = time.monotonic() + 60\n"
        "with tempfile.TemporaryFile() as file:\n"
        " while time.monotonic() < end:\n"
        "  subprocess.run(['/bin/true'])\n  os.getppid()\n"
        "  os.pwrite(file.fileno(), b'x' * 4096, 0)\n  os.fsync(file.fileno())"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    yield
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def python():
    """`python(code)` runs code in another process, because the agent's own is never counted."""

    def run(code):
        subprocess.run([sys.executable, "-c", code], check=True)

    return run
