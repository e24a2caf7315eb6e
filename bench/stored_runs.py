"""How long `/runs` and `/metrics` take with many runs in the store, asked of a real agent.

    .venv/bin/python -m bench.stored_runs [RUNS] [DIRECTORY]

It fills a SQLite store with RUNS (100,000) runs of 400 label sets, each with the evidence of a mock run (11 KB, so
1.2 GB in DIRECTORY, by default a new one under /var/tmp; what is there is used again), and prints milliseconds, with
one run of each label set and with all of them: by the wall, and of the agent's CPU, whatever else this machine does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests
from sqlalchemy import insert

from chainbench_agent.client import Agent
from chainbench_agent.collector.mock import MockCollector
from chainbench_agent.commands.own_agent import own_agent
from chainbench_agent.evidence.model import Labels
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.model.stored_run import StoredRun, Summary
from chainbench_agent.probes import CATALOG
from chainbench_agent.runs.running import CurrentRun, new_id
from chainbench_agent.settings import load_settings
from chainbench_agent.store import open_store
from chainbench_agent.store.queries import columns
from chainbench_agent.store.schema import RUNS

MACHINE = "bench"
TIMES = 53
BATCH = 500
LABEL_SETS = 400
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
OPTIONS = ("--backend", "mock", "--machine", MACHINE, "--keep-runs", "10000000", "--log-level", "error")


def main(runs: int, directory: Path) -> None:
    for count in (LABEL_SETS, runs):
        place = directory / str(count)
        if not place.exists():
            fill(place, count)
        print(f"{count} runs, {sum(file.stat().st_size for file in place.iterdir()) / 1e6:.0f} MB:")
        for name, milliseconds in measured(place, questions(count)).items():
            print(f"    {name:40} {milliseconds}")


def questions(runs: int) -> dict[str, str]:
    middle = new_id(BEGAN + timedelta(seconds=runs // 2))
    return {
        "/metrics of the 100 label sets used last": "/metrics",
        "/runs": "/runs",
        "/runs, 1,000 on the page": "/runs?limit=1000",
        "/runs, from the middle": f"/runs?before={middle}",
        "/runs of one commit (0.5 %)": "/runs?commit=7",
        "/runs of one scenario (50 %)": "/runs?scenario=baseline",
        "/runs of a commit that is not there": "/runs?commit=none",
        "/runs of a scenario and a commit": "/runs?scenario=baseline&commit=7",
        "/runs of two labels that never meet": "/runs?scenario=baseline&impl=c",
        "/runs that failed (none)": "/runs?result=failed",
        "/runs of this machine that finished": f"/runs?machine={MACHINE}&result=finished",
    }


def fill(directory: Path, runs: int) -> None:
    store = open_store(load_settings(store="sqlite", state_dir=str(directory), machine=MACHINE))
    for first in range(0, runs, BATCH):
        rows = [columns(run(number)) for number in range(first, min(first + BATCH, runs))]
        store._do(lambda c, rows=rows: c.execute(insert(RUNS), rows), "lazy")  # type: ignore[attr-defined]
    store.close()


def run(number: int) -> StoredRun:
    began = BEGAN + timedelta(seconds=number)
    scenario, impl = ("optimized", "c") if number % 2 else ("baseline", "python")
    labels = Labels(
        scenario=scenario, impl=impl, variant="numpy", commit=str(number // 2 % (LABEL_SETS // 2)), dataset="d"
    )
    active = CurrentRun(new_id(began), RunRequest(labels=labels), began, 0)
    evidence = EVIDENCE | {"run": active.run(MACHINE, 10**9, "stop").model_dump(mode="json", exclude_none=True)}
    return StoredRun(Summary.of(active.run(MACHINE, 10**9, "stop"), "finished", "mock"), {"cpus": 2}, evidence)


def made_up() -> dict[str, object]:
    active = CurrentRun("x", RunRequest(), BEGAN, 0)
    return MockCollector("bench", "", CATALOG).evidence(active.run(MACHINE, 10**9, "stop")).as_json()


EVIDENCE = made_up()


def measured(directory: Path, questions: dict[str, str]) -> dict[str, str]:
    state = {"CHAINBENCH_STORE": "sqlite", "CHAINBENCH_STATE_DIR": str(directory)}
    with own_agent(*OPTIONS, environment=state) as (agent, _), requests.Session() as session:
        session.trust_env = False
        return {name: milliseconds(agent, session, path) for name, path in questions.items()}


def milliseconds(agent: Agent, session: requests.Session, path: str) -> str:
    """Over one connection that stays open, and as bytes: the work of the client is not what is measured."""
    took = []
    session.get(agent.url + path, timeout=60).raise_for_status()  # what is only done once is not counted
    cpu_before_s = cpu_s(agent)
    for _ in range(TIMES):
        began = time.perf_counter()
        session.get(agent.url + path, timeout=60).raise_for_status()
        took.append((time.perf_counter() - began) * 1e3)
    cpu_ms = (cpu_s(agent) - cpu_before_s) * 1e3 / TIMES
    return f"median {statistics.median(took):6.1f} ms, longest {max(took):6.1f} ms, CPU {cpu_ms:5.1f} ms"


def cpu_s(agent: Agent) -> float:
    return float(agent.status()["agent"]["cpu_seconds"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", type=int, default=100_000)
    parser.add_argument("directory", nargs="?", type=Path)
    chosen = parser.parse_args()
    main(chosen.runs, chosen.directory or Path(tempfile.mkdtemp(prefix="chainbench-bench-", dir="/var/tmp")))
