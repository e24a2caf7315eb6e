"""Known loads: each does so many operations of one kind, as fast as it can, and then ends."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LOADS = Path(__file__).with_name("loads")
DISK = "/var/tmp"  # noqa: S108 - unique directories are made there
PINNED = ("taskset", "-c", "1")

Command = Callable[[int, str], Sequence[str]]
"""(operations, directory) → an argument list."""


@dataclass(frozen=True, slots=True)
class Workload:
    """`operations`: a number that takes about half a second.  `disk`: it requires a directory on a block device."""

    name: str
    operation: str
    operations: int
    command: Command
    disk: bool = False

    def run(self, share: float = 1.0) -> float:
        """Do that share of the operations; the answer is the wall time of one, in seconds."""
        count = max(1, int(self.operations * share))
        with tempfile.TemporaryDirectory(dir=DISK if self.disk else None) as directory:
            command = self.command(count, directory)
            began = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory)
            took = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")
        return took / count


def _perf(*arguments: str) -> Command:
    return lambda count, _: ("perf", "bench", *arguments, str(count))


def _python(name: str) -> Command:
    script = str(LOADS / f"{name}.py")
    return lambda count, directory: (sys.executable, "-IS", script, str(count), directory)


def _pinned(command: Command) -> Command:
    return lambda count, directory: (*PINNED, *command(count, directory))


def _fio(count: int, directory: str) -> Sequence[str]:
    how = ("--name=bench", "--rw=randread", "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=16", "--size=16M")
    return ("fio", *how, f"--directory={directory}", f"--number_ios={count}", "--io_size=100G")


def _iperf3(count: int, _directory: str) -> Sequence[str]:
    return ("sh", str(LOADS / "iperf3.sh"), str(count))


_PIPE = _perf("sched", "pipe", "-l")
_ALL = (
    Workload("pipe pinned", "a message there and back between two processes on one CPU", 100_000, _pinned(_PIPE)),
    Workload("pipe", "a message there and back between two processes", 100_000, _PIPE),
    Workload("hackbench", "a round of 80 processes", 500, _perf("sched", "messaging", "-g", "2", "-l")),
    Workload("syscall", "getppid()", 8_000_000, _perf("syscall", "basic", "-l")),
    Workload("exec", "fork, exec and wait for /bin/true", 500, _python("exec")),
    Workload("iperf3", "128 KiB over loopback TCP", 20_000, _iperf3),
    Workload("fio", "4 KiB read past the page cache, 16 at a time", 20_000, _fio, disk=True),
    Workload("tcp", "a send and its receive", 100_000, _pinned(_python("tcp"))),
    Workload("udp", "a datagram over loopback", 100_000, _pinned(_python("udp"))),
    Workload("locks", "mkdir and rmdir in one directory, by 4 processes", 20_000, _python("locks")),
    Workload("paced", "a short sleep, some computing and 3 system calls", 6_000, _python("paced")),
)
WORKLOADS = {load.name: load for load in _ALL}
