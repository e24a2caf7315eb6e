"""An agent in a process of its own, for as long as a with statement lasts: of the demo and of the benchmarks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from chainbench_agent.client import Agent, UnreachableError
from chainbench_agent.errors import AgentError

READY_WITHIN_S = 300
"""Also how long the client waits for an answer: the first one comes when everything is compiled and loaded."""

POLL_S = 0.005
"""The benchmarks measure how long the agent takes to start."""


@contextmanager
def own_agent(
    *options: str, environment: Mapping[str, str] | None = None, before: Sequence[str] = ()
) -> Iterator[tuple[Agent, subprocess.Popen[bytes]]]:
    """A client of an agent on a free port, which answers, and its process.

    `options`: those of `serve`.  `environment`: variables in addition to this process's.  `before`: the command that
    executes the agent's.  AgentError with the agent's log if it does not start.
    """
    port = free_port()
    serve = ["serve", "--host", "127.0.0.1", "--port", str(port), *options]
    command = [*before, sys.executable, "-m", "chainbench_agent", *serve]
    with tempfile.TemporaryFile("w+") as its_log:
        process = subprocess.Popen(command, stderr=its_log, env=os.environ | (environment or {}))
        try:
            client = Agent(f"http://127.0.0.1:{port}", timeout=READY_WITHIN_S)
            if not _answers(client, process):
                its_log.seek(0)
                raise AgentError(f"the agent did not start:\n{its_log.read().strip()}")
            yield client, process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _answers(client: Agent, process: subprocess.Popen[bytes]) -> bool:
    """Wait for the first answer; False if the agent ends, or does not listen in time."""
    deadline = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            client.status()
        except UnreachableError:
            time.sleep(POLL_S)
        else:
            return True
    return False
