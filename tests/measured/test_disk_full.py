"""A full disk below the state directory, while the kernel is measured: no run is disturbed, and no evidence is lost."""

import json
import subprocess
from contextlib import suppress

import pytest
from daemon import LABELS

pytestmark = [pytest.mark.bpf, pytest.mark.mount, pytest.mark.portable]

OPEN = "from chainbench_agent.collector import open_collector\n    return open_collector(settings)"
PROGRAMS = "read go; for i in $(seq 53); do /bin/true; done; echo; read go"
MOST_RUNS = 23
"""So many small ones may still find room in what SQLite had taken before."""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def agent(small_disk, daemon):
    """An agent that writes the active run five times a second."""
    agent = daemon(OPEN, backend="ebpf", store="sqlite", state_dir=small_disk / "state", checkpoint_s=0.2)
    yield agent
    agent.end()  # before its disk goes


def run(agent):
    """The evidence of a shell that starts 53 programs and waits for the end of the run."""
    with subprocess.Popen(["sh", "-c", PROGRAMS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        agent.client.start(**LABELS, pid=shell.pid)
        shell.stdin.write(b"\n")
        shell.stdin.flush()
        shell.stdout.readline()
        evidence = agent.client.stop()
        shell.communicate(b"\n")
    return evidence


def test_a_run_on_a_full_disk_is_stored_later(agent, small_disk):
    """The evidence is exact; it and the log say that it is not stored.  It is stored when there is room again."""
    filler = small_disk / "filler"
    assert "not_kept" not in run(agent)
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    evidence = next(found for found in (run(agent) for _ in range(MOST_RUNS)) if "not_kept" in found)
    store = agent.client.status()["store"]
    logged = next(line for line in agent.log.splitlines() if f"run {evidence['run']['id']} is not stored" in line)
    scraped = agent.client.metrics()

    assert evidence["exec"]["exec_count"] == 53 + 1
    assert evidence["not_kept"].endswith("database or disk is full; make room on that disk")
    assert (store["state"], store["reason"]) == ("down", evidence["not_kept"])
    assert json.loads(logged.partition("evidence: ")[2])["exec"]["exec_count"] == 53 + 1
    assert "\nchainbench_agent_store_bytes " in scraped

    filler.unlink()
    later = run(agent)
    kept = agent.client.run(evidence["run"]["id"])

    assert "not_kept" not in later
    assert kept["evidence"]["exec"] == evidence["exec"]
    assert agent.client.status()["store"]["state"] == "up"
