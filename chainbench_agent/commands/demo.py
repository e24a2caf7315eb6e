"""`chainbench-agent demo`: what a benchmark runner does with the agent, on a small workload that runs for real."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from chainbench_agent.commands.demo_table import side_by_side
from chainbench_agent.errors import AgentError
from chainbench_agent.evidence.model import Evidence

WORKLOAD = Path(__file__).with_name("demo_workload.py")
READY_WITHIN_S = 60
ANSWER_WITHIN_S = 300  # the first answer comes when everything is compiled and loaded
HTTP = requests.Session()
HTTP.trust_env = False  # no proxy between us and our own agent
PAIR = {"impl": "python", "variant": "batched", "commit": "demo", "dataset": "600 records"}


def run_demo() -> str:
    """Start an agent, measure the pair, stop the agent.  The answer is a table for people."""
    try:
        with running_agent() as url, tempfile.TemporaryDirectory(dir=scratch()) as directory:
            baseline_ms, baseline = measure(url, "baseline", directory)
            optimized_ms, optimized = measure(url, "optimized", directory)
            gain_pct = (baseline_ms - optimized_ms) / baseline_ms * 100
            report = {"baseline_ms": baseline_ms, "optimized_ms": optimized_ms, "gain_pct": gain_pct}
            post(f"{url}/report", PAIR | report)
            runs = Evidence.from_json(baseline), Evidence.from_json(optimized)
            return side_by_side(*runs, baseline_ms, optimized_ms)
    except requests.RequestException as error:
        raise AgentError(f"the agent did not answer: {error}") from None


@contextmanager
def running_agent() -> Iterator[str]:
    """An agent of our own, on a free port; its URL."""
    with tempfile.TemporaryFile("w+") as its_log:
        port = free_port()
        serve = ["serve", "--host", "127.0.0.1", "--port", str(port), "--store", "none"]
        agent = subprocess.Popen([sys.executable, "-m", "chainbench_agent", *serve], stderr=its_log)
        try:
            url = f"http://127.0.0.1:{port}"
            if not is_ready(agent, url):
                its_log.seek(0)
                raise AgentError(f"the agent did not start:\n{its_log.read().strip()}")
            yield url
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait()


def is_ready(agent: subprocess.Popen[bytes], url: str) -> bool:
    """Wait for the first answer; False if the agent ends, or lets wait too long."""
    deadline = time.monotonic() + READY_WITHIN_S
    while agent.poll() is None and time.monotonic() < deadline:
        try:
            HTTP.get(f"{url}/status", timeout=ANSWER_WITHIN_S)
        except requests.ConnectionError:
            time.sleep(0.05)
        else:
            return True
    return False


def measure(url: str, scenario: str, directory: str) -> tuple[float, dict[str, Any]]:
    """One run of the workload between /start and /stop: its wall time in milliseconds, and the evidence.

    The workload waits until the run is on, which is of it and what it starts alone.
    """
    command = [sys.executable, str(WORKLOAD), scenario, f"{directory}/{scenario}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as workload:
        if workload.stdout and workload.stdout.readline():
            post(f"{url}/start", {"scenario": scenario, "pid": workload.pid} | PAIR)
        began = time.perf_counter()
        _, complaint = workload.communicate("go\n")
        wall_ms = (time.perf_counter() - began) * 1000
    if workload.returncode:
        raise AgentError(f"the workload failed: {complaint.strip()}")
    return wall_ms, post(f"{url}/stop")


def post(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the agent answers; a refusal is raised in its own words."""
    answer = HTTP.post(url, json=body, timeout=ANSWER_WITHIN_S)
    document: dict[str, Any] = answer.json()
    if not answer.ok:
        raise AgentError(f"{url}: {document['detail']}")
    return document


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def scratch() -> str | None:
    """A directory that is on a disk, so that flushing means something: /tmp often is not."""
    return "/var/tmp" if os.access("/var/tmp", os.W_OK) else None  # noqa: S108 - unique directories are made there
