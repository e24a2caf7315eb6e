"""A store that fails during a run: the client gets the evidence, and the reason why it is not stored."""

import os
import sqlite3

import pytest

from chainbench_agent.collector.fake import FakeCollector
from chainbench_agent.runs.archive import Archive
from chainbench_agent.runs.lifecycle import Runs
from chainbench_agent.store import sqlite as sqlite_store
from chainbench_agent.web.app import create_app

LABELS = {"scenario": "baseline", "impl": "python", "variant": "numpy", "commit": "abc123", "dataset": "sha256hash"}


@pytest.fixture
def client_of():
    """`client_of(store)` → a client of an agent that stores its runs there."""

    def make(store):
        archive = Archive(store, checkpoint_s=3600)
        return create_app(Runs(FakeCollector(), "m", archive=archive), lambda _: (b"", "")).test_client()

    return make


def ids(client):
    return [run["id"] for run in client.get("/runs").json["runs"]]


def stop_in_trouble(client, trouble):
    """Stops a run in `trouble`, which succeeds; returns the id of the run, and why it is not stored."""
    assert client.post("/start", json=LABELS).status_code == 200
    trouble()
    stopped = client.post("/stop")
    assert stopped.status_code == 200
    assert stopped.json["exec"] == {"exec_count": 53}
    assert client.get("/report").json["evidence"]["run"] == stopped.json["run"]
    return stopped.json["run"]["id"], stopped.json.get("not_kept", "")


def is_stored_later(client, run_id):
    """It is stored with the next run."""
    client.post("/start", json=LABELS)
    later = client.post("/stop").json
    assert "not_kept" not in later
    assert ids(client) == [later["run"]["id"], run_id]
    assert client.get("/status").json["store"]["state"] == "up"


@pytest.mark.mount
def test_the_disk_is_full(disk, opened, client_of, caplog):
    client = client_of(opened("sqlite", state_dir=str(disk.place / "state")))

    def fill():
        disk.fill()
        while "cannot be written" not in caplog.text:  # SQLite uses up first what it had already taken
            assert client.post("/stop").status_code == 200
            assert client.post("/start", json=LABELS | {"commit": "x" * 200}).status_code == 200

    run_id, why_not = stop_in_trouble(client, fill)

    assert why_not.endswith("database or disk is full; make room on that disk")
    assert client.get("/status").json["store"]["reason"] == why_not
    assert f"run {run_id} is not stored: " in caplog.text
    disk.empty()
    client.post("/start", json=LABELS)
    assert "not_kept" not in client.post("/stop").json
    assert run_id in ids(client)


def test_the_database_is_locked(tmp_path, opened, client_of, monkeypatch):
    monkeypatch.setattr(sqlite_store, "BUSY_S", 0.1)
    client = client_of(opened("sqlite", state_dir=str(tmp_path)))
    other = sqlite3.connect(tmp_path / "runs.sqlite3", isolation_level=None)

    run_id, why_not = stop_in_trouble(client, lambda: other.execute("BEGIN IMMEDIATE"))

    assert "database is locked" in why_not
    assert client.get("/runs").json["runs"][0]["result"] == "running"
    other.execute("ROLLBACK")
    other.close()
    is_stored_later(client, run_id)


def test_the_database_becomes_corrupt(tmp_path, opened, client_of):
    """The run goes into a new one; where the old one is, /status says."""
    store = opened("sqlite", state_dir=str(tmp_path))
    client = client_of(store)

    def corrupt():
        store._engine.dispose()
        (tmp_path / "runs.sqlite3").write_bytes(os.urandom(8192))

    run_id, why_not = stop_in_trouble(client, corrupt)

    assert why_not == ""
    assert ids(client) == [run_id]
    assert client.get(f"/runs/{run_id}").json["result"] == "finished"
    moved = client.get("/status").json["store"]["moved_aside"]
    assert (tmp_path / moved).exists()


@pytest.mark.postgresql
def test_the_server_goes_away(cluster, opened, client_of):
    client = client_of(opened(cluster.url()))

    run_id, why_not = stop_in_trouble(client, cluster.stop)

    assert "see that this server runs" in why_not
    assert client.get("/runs").status_code == 503
    cluster.start()
    is_stored_later(client, run_id)
