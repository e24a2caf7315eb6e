"""`chainbench-agent demo`: what a benchmark runner does with the agent, on a small workload that runs for real."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from chainbench_agent.client import Agent, ClientError
from chainbench_agent.commands.demo_table import side_by_side
from chainbench_agent.commands.own_agent import own_agent
from chainbench_agent.errors import AgentError
from chainbench_agent.evidence.model import Evidence

WORKLOAD = Path(__file__).with_name("demo_workload.py")
PAIR = {"impl": "python", "variant": "batched", "commit": "demo", "dataset": "600 records"}


def run_demo() -> str:
    """Start an agent, measure both variants, stop the agent; return a table for people."""
    try:
        with own_agent("--store", "none") as (agent, _), tempfile.TemporaryDirectory(dir=scratch()) as directory:
            baseline_ms, baseline = measure(agent, "baseline", directory)
            optimized_ms, optimized = measure(agent, "optimized", directory)
            gain_pct = (baseline_ms - optimized_ms) / baseline_ms * 100
            agent.report(**PAIR, baseline_ms=baseline_ms, optimized_ms=optimized_ms, gain_pct=gain_pct)
            runs = Evidence.from_json(baseline), Evidence.from_json(optimized)
            return side_by_side(*runs, baseline_ms, optimized_ms)
    except ClientError as error:
        raise AgentError(str(error)) from None


def measure(agent: Agent, scenario: str, directory: str) -> tuple[float, dict[str, Any]]:
    """Run the workload as the target of a run; return its wall time in milliseconds, and the evidence.

    The workload waits until the run is on.
    """
    command = [sys.executable, str(WORKLOAD), scenario, f"{directory}/{scenario}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as workload:
        if not (workload.stdout and workload.stdout.readline()):
            raise _failure(workload.communicate()[1])
        with agent.collect(PAIR, scenario=scenario, pid=workload.pid) as run:
            began = time.perf_counter()
            _, complaint = workload.communicate("go\n")
            wall_ms = (time.perf_counter() - began) * 1000
    if workload.returncode:
        raise _failure(complaint)
    return wall_ms, run.evidence


def scratch() -> str | None:
    """A directory on a disk, where flushing has a cost: /tmp is often in memory."""
    return "/var/tmp" if os.access("/var/tmp", os.W_OK) else None  # noqa: S108 - unique directories are made there


def _failure(complaint: str) -> AgentError:
    return AgentError(f"the workload failed: {complaint.strip()}")
