"""The subjects of the benchmarks: the agent and programs of other projects, each in processes of its own."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.accounts import programs_of, tree
from chainbench_agent import client
from chainbench_agent.commands.own_agent import READY_WITHIN_S, own_agent
from chainbench_agent.headers.btf import Btf
from chainbench_agent.headers.header_tree import cached_tree

LABELS = {"scenario": "bench", "impl": "python", "variant": "none", "commit": "bench", "dataset": "none"}
SILENT_S = 1.0
AS_A_SERVICE = ("setpriv", "--bounding-set=-sys_admin")
"""As under its systemd unit: the kernel then counts no cost of programs, which doubles what short ones take."""
SCRIPTS = Path(__file__).with_name("peers")


@dataclass(slots=True)
class Agent:
    """A daemon of this project.  While it is measured, a run of `probes` is on; none: of all modules."""

    client: client.Agent
    process: subprocess.Popen[bytes]
    probes: tuple[str, ...] = ()
    name: str = "chainbench-agent"

    @contextmanager
    def running(self) -> Iterator[list[int]]:
        """A run that is on; here and below, this yields the processes whose programs are looked at."""
        with self.client.collect(LABELS, probes=self.probes or None):
            yield [self.process.pid]

    def collecting(self, *probes: str, name: str = "") -> Agent:
        """The same daemon, where runs are of these modules."""
        return Agent(self.client, self.process, probes, name or self.name)


@contextmanager
def agent(cache: Path, *options: str, before: Sequence[str] = ()) -> Iterator[Agent]:
    """An agent that is ready, with a new store; `cache`: for its header trees; `before`: what executes it."""
    state = tempfile.mkdtemp(dir=cache)
    serve = ("--backend", "ebpf", "--state-dir", state, *options)
    with own_agent(*serve, environment={"CHAINBENCH_HEADER_CACHE": str(cache)}, before=before) as (found, process):
        yield Agent(found, process)


@dataclass(frozen=True, slots=True)
class Tool:
    """Another project's program.  It is ready when it has printed a line, and `settle_s` have gone by.

    Or, because some print nothing before their end, when for SILENT_S it has held the same BPF programs.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str | None = None
    settle_s: float = 0.1

    @contextmanager
    def running(self) -> Iterator[list[int]]:
        ours, theirs = pty.openpty()  # on a terminal, they print line by line
        environment = os.environ | {"PYTHONUNBUFFERED": "1"} | dict(self.environment)
        process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment, cwd=self.directory
        )
        os.close(theirs)
        said, spoke = bytearray(), threading.Event()
        reader = threading.Thread(target=_drain, args=(ours, said, spoke), daemon=True)
        reader.start()
        try:
            _wait_until_ready(process.pid, spoke)
            time.sleep(self.settle_s)
            if process.poll() is not None:
                raise RuntimeError(f"{self.name} did not start: {said.decode(errors='replace')}")
            yield [process.pid]
        finally:
            _end(process)
            reader.join()
            os.close(ours)


def _wait_until_ready(pid: int, spoke: threading.Event) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    held: set[int] = set()
    while not spoke.wait(SILENT_S) and time.monotonic() < deadline:
        before, held = held, set(programs_of(tree(pid)))
        if held and held == before:
            return


def _drain(terminal: int, said: bytearray, spoke: threading.Event) -> None:
    """Read all that comes, keep the beginning."""
    with suppress(OSError):  # nobody holds the other end any more
        while data := os.read(terminal, 65536):
            if len(said) < 2000:
                said += data
            if b"\n" in said:
                spoke.set()
    spoke.set()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True, slots=True)
class Together:
    """Several programs at once."""

    name: str
    members: Sequence[Tool]

    @contextmanager
    def running(self) -> Iterator[list[int]]:
        with ExitStack() as stack:
            yield [pid for member in self.members for pid in stack.enter_context(member.running())]


Subject = Agent | Tool | Together


@contextmanager
def left_out(subject: Subject, absent: dict[str, str]) -> Iterator[None]:
    """A peer that does not run here is left out with its reason; the agent has to run."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        if isinstance(subject, Agent):
            raise
        absent[subject.name] = (str(error).strip().splitlines() or ["unknown"])[-1]


class Peers:
    """The programs of other projects.  `cache`: where the header tree for BCC's lies."""

    def __init__(self, cache: Path) -> None:
        self._tree = str(cached_tree(cache, Btf.load(), None, os.uname().release))

    def bcc(self, name: str, *arguments: str) -> Tool:
        """One of BCC's own tools, which compiles against our header tree."""
        command = (f"/usr/sbin/{name}-bpfcc", *arguments)
        return Tool(f"BCC {name}", command, {"BCC_KERNEL_SOURCE": self._tree}, self._tree)

    def libbpf_tools(self, name: str, *arguments: str) -> Tool:
        return Tool(f"libbpf-tools {name}", (f"/usr/sbin/{name}", *arguments))

    def bpftrace(self, name: str) -> Tool:
        """A script of peers/, or else one of the package's.  It speaks before it is attached."""
        own, packaged = SCRIPTS / f"{name}.bt", Path(f"/usr/sbin/{name}.bt")
        return Tool(f"bpftrace {name}", ("bpftrace", str(own if own.exists() else packaged)), settle_s=1.0)
