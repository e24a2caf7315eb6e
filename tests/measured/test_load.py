"""The whole agent under load, measuring: it loses nothing, and keeps nothing."""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests

pytestmark = pytest.mark.bpf

OPEN = "from chainbench_agent.collector import open_collector\n    return open_collector(settings)"
LABELS = {"scenario": "s", "impl": "i", "variant": "v", "commit": "c", "dataset": "d"}
WORKLOAD = """
import os, subprocess, sys
print(flush=True); sys.stdin.readline()
for _ in range(53):
    for _ in range(1009): os.getppid()
    subprocess.run(["/bin/true"])
    subprocess.run(["sleep", "0.05"])
"""


@pytest.fixture
def agent(daemon):
    agent = daemon(OPEN, backend="ebpf")
    agent.until(lambda: agent.url)
    return agent


def of_worker(agent):
    """Descriptors, and KiB of memory that are its own share."""
    process = Path(f"/proc/{agent.worker()}")
    rollup = (process / "smaps_rollup").read_text()
    return len(list((process / "fd").iterdir())), int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1])


def test_200_scrapes_a_second_lose_nothing(agent):
    """Beside a run with exactly 53,477 getppid and 106 programs; each scrape is answered."""
    due_s, statuses = 1 / 200, []
    with subprocess.Popen([sys.executable, "-c", WORKLOAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as workload:
        workload.stdout.readline()
        assert agent.post("/start", **LABELS, pid=workload.pid).status_code == 200
        workload.stdin.write(b"\n")
        workload.stdin.flush()
        done = threading.Event()

        def scrape():
            while not done.is_set():
                began = time.monotonic()
                statuses.append(requests.get(f"{agent.url}/metrics", timeout=60).status_code)
                done.wait(max(0, 4 * due_s - (time.monotonic() - began)))

        scraping = [threading.Thread(target=scrape) for _ in range(4)]
        for thread in scraping:
            thread.start()
        workload.wait()
        done.set()
        for thread in scraping:
            thread.join()
    evidence = agent.post("/stop").json()

    assert evidence["syscall_counts"]["getppid"] == 53 * 1009
    assert evidence["exec"]["exec_count"] == 106
    assert evidence["loss"] == {"total": 0, "causes": {}}
    assert set(statuses) == {200}
    assert len(statuses) > 53


def test_211_runs_leave_nothing_behind(agent):
    """With every program attached and detached each time."""

    def cycles(count):
        for _ in range(count):
            assert agent.post("/start", **LABELS).status_code == 200
            assert agent.post("/stop").status_code == 200

    cycles(23)
    worker, before = agent.worker(), of_worker(agent)
    cycles(211)
    agent.until(lambda: of_worker(agent)[0] <= before[0])

    assert agent.worker() == worker
    assert of_worker(agent)[1] - before[1] < 2048
