"""Fixtures for known workloads on this kernel: a prime number of things happens, and the evidence must show it."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chainbench_agent.catalog.selection import EVERYTHING
from chainbench_agent.collector.ebpf import EbpfCollector
from chainbench_agent.evidence.model import Run, Target
from chainbench_agent.kernel.targets.cgroups import cgroup2_mount
from chainbench_agent.loading.event_records import Telling
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.probes import CATALOG, HOOKS

HERE = Path(__file__).parent
sys.path.append(str(HERE))  # the tests here import the files next to them

from disks import MIB, Disk, sh  # noqa: E402 - found only now
from packages import require  # noqa: E402 - found only now
from said import Said  # noqa: E402

RUN = Run(id="test", machine="test", started_at=datetime(2026, 1, 1, tzinfo=UTC), duration_ms=0, ended_by="stop")
CGROUPS = Path("/sys/fs/cgroup")


class SelfChecked(EbpfCollector):
    """A collector whose evidence must not contradict itself, whatever a test measures."""

    def evidence(self, run):
        evidence = super().evidence(run)
        assert evidence.self_check.checked
        assert evidence.self_check.violations == [], evidence.as_json()
        return evidence


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("headers")


@pytest.fixture(scope="session")
def collector(cache_dir):
    """All modules with all options, loaded once; a run has an option only if it names it."""
    options = [name for module in CATALOG for name in module.names if name != module.name]
    collector = SelfChecked(CATALOG, HOOKS, cache_dir, options)
    yield collector
    collector.close()


@pytest.fixture(scope="session")
def telling(cache_dir):
    """All modules and locks:order, with what tells events."""
    telling = SelfChecked(CATALOG, HOOKS, cache_dir, ["locks:order"], events=Telling())
    yield telling
    telling.close()


@pytest.fixture
def run():
    return RUN


@pytest.fixture
def measure(collector):
    """`measure(workload)` → the evidence, as JSON, of a run in which the workload ran once."""

    def during(workload):
        collector.start(RunRequest())
        try:
            workload()
        finally:
            collector.stop()
        return collector.evidence(RUN).as_json()

    return during


def every_switch_shown(evidence):
    """A switch that was not shown makes the figures around it incomplete, and the evidence says so."""
    return "unseen_switches" not in evidence["loss"]["causes"]


class Targeted:
    """A Python process that prepares, waits until the run has started, runs its code as the target, and ends."""

    def __init__(self, collector, code, setup):
        self.collector = collector
        self._code = f"import sys\n{setup}\nprint(flush=True)\nsys.stdin.readline()\n{code}"
        self.output = ""
        self._start()

    def run(self, target=None, selection=EVERYTHING):
        """The evidence, as JSON, of a run from before the first line of the code until the process has ended."""
        target = target or Target(kind="pid", pid=self.process.pid)
        self.collector.start(RunRequest(target=target, selection=selection))
        try:
            self.output, _ = self.process.communicate("\n")
        finally:
            self.collector.stop()
        assert self.process.returncode == 0
        return self.collector.evidence(RUN).as_json()

    def run_seen(self, prepare=lambda _one: None, shown=every_switch_shown):
        """As `run`, of a run in which the machine has `shown(evidence)` all: see docs/decisions/0003.

        Else it is done again, by a new process, at most six times.  `prepare`: what has to be made ready each time.
        """
        for _ in range(6):
            prepare(self)
            evidence = self.run()
            if shown(evidence):
                return evidence
            self.close()
            self._start()
        prepare(self)
        return self.run()

    def close(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()

    def _start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", self._code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.process.stdout.readline()  # it has started


@pytest.fixture
def targeted(collector):
    """`targeted(code)` → a process that is ready to run the code as a target, after the code in `setup`."""
    started = []

    def start(code, setup=""):
        started.append(Targeted(collector, code, setup))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def said(telling, targeted):
    """`said(code)` → the evidence of a target that ran the code, and the events that were emitted."""
    return lambda code, setup="": Said(telling, targeted(code, setup))


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


@pytest.fixture
def limited():
    """A CPU cgroup with a 25th of a CPU: on a busy machine, too, a spinner uses that up."""
    if (CGROUPS / "cpu").is_dir():
        group = CGROUPS / "cpu/chainbench-test"
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text("50000")
        (group / "cpu.cfs_quota_us").write_text("2000")
    else:
        if "cpu" not in (CGROUPS / "cgroup.subtree_control").read_text().split():
            (CGROUPS / "cgroup.subtree_control").write_text("+cpu")
        group = CGROUPS / "chainbench-test"
        group.mkdir()
        (group / "cpu.max").write_text("2000 50000")
    yield group
    group.rmdir()


@pytest.fixture
def small_group():
    """The code with which a process joins a memory cgroup that has a limit of 24 MiB."""
    v1 = CGROUPS / "memory"
    group = (v1 if v1.is_dir() else cgroup2_mount()) / "chainbench-test-memory"
    group.mkdir()
    (group / ("memory.limit_in_bytes" if v1.is_dir() else "memory.max")).write_text(str(24 << 20))
    yield f"open('{group}/cgroup.procs', 'w').write(str(os.getpid()))\n"
    group.rmdir()


@pytest.fixture
def stuck(tmp_path):
    """A disk whose file is in a file system that can be frozen: `freeze()`, and `thaw()`."""
    below = Disk(tmp_path / "below", 64 * MIB)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    sh(str(require("mke2fs")), "-q", "-t", "ext4", below.path)
    sh("mount", below.path, str(mounted))
    disk = Disk(mounted / "disk", 8 * MIB)
    sh("sync", "-f", str(mounted))
    disk.freeze = lambda: sh("fsfreeze", "--freeze", str(mounted))
    disk.thaw = lambda: subprocess.run(["fsfreeze", "--unfreeze", str(mounted)], check=False, capture_output=True)
    yield disk
    disk.thaw()
    disk.close()
    sh("umount", str(mounted))
    below.close()


@pytest.fixture(scope="module")
def lock_order(tmp_path_factory):
    """`lock_order(*options)` → lock_order.c as a program, whose stack can be walked: its frames have pointers."""
    compiler = require("cc")
    directory = tmp_path_factory.mktemp("program")

    def built(*options):
        program = directory / "-".join(("lock_order-cc", *options))
        if not program.exists():
            flags = ("-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread")
            subprocess.run([compiler, *flags, *options, HERE / "lock_order.c", "-o", program], check=True)
        return program

    return built
