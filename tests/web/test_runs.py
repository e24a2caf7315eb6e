"""Stored runs, as a client asks for them."""

from urllib.parse import parse_qs, urlsplit

import pytest

from chainbench_agent.errors import StoreError
from chainbench_agent.model.stored_run import LABELS
from chainbench_agent.runs.archive import Archive
from chainbench_agent.runs.lifecycle import Runs
from chainbench_agent.settings import load_settings
from chainbench_agent.store import open_store
from chainbench_agent.web.app import create_app


@pytest.fixture
def store(tmp_path):
    store = open_store(load_settings(store="sqlite", state_dir=str(tmp_path / "state"), machine="m"))
    yield store
    store.close()


@pytest.fixture
def runs(collector, store):
    return Runs(collector, "m", archive=Archive(store, lambda: {"kernel": "6.1.0"}, checkpoint_s=3600))


@pytest.fixture
def run(client, labels):
    """Makes a run, with other labels where given; its evidence."""

    def make(**changes):
        assert client.post("/start", json=labels | changes).status_code == 200
        return client.post("/stop").json

    return make


def ids(answer):
    return [run["id"] for run in answer.json["runs"]]


def test_no_runs(client):
    answer = client.get("/runs")

    assert (answer.status_code, answer.json) == (200, {"runs": [], "next": None})


def test_a_list(client, run, labels):
    """Newest first, without evidence."""
    first, second = run(), run(commit="b")
    answer = client.get("/runs")

    assert ids(answer) == [second["run"]["id"], first["run"]["id"]]
    assert answer.json["runs"][1] == {
        **labels,
        "id": first["run"]["id"],
        "machine": "m",
        "started_at": first["run"]["started_at"],
        "duration_ms": first["run"]["duration_ms"],
        "result": "finished",
        "ended_by": "stop",
        "source": "ebpf",
        "failure": None,
    }


def test_a_run(client, run):
    """The evidence as /stop answered it, the environment, and how the run ended."""
    evidence = run()
    answer = client.get(f"/runs/{evidence['run']['id']}")

    assert answer.status_code == 200
    assert answer.json["evidence"] == evidence
    assert list(answer.json["evidence"]) == list(evidence)
    assert (answer.json["result"], answer.json["environment"]) == ("finished", {"kernel": "6.1.0"})


def test_the_run_that_is_on(client, labels):
    """Is listed as running; its evidence is there from the first checkpoint on."""
    run_id = client.post("/start", json=labels).json["run_id"]

    assert [(run["id"], run["result"]) for run in client.get("/runs").json["runs"]] == [(run_id, "running")]
    assert client.get(f"/runs/{run_id}").json["evidence"] is None


@pytest.mark.parametrize("name", [name for name in LABELS if name != "machine"])
def test_a_filter(client, run, name):
    """Any label; its value may be anything that a label may be."""
    run()
    found = run(**{name: "a&b=c \N{SNOWMAN}"})

    assert ids(client.get("/runs", query_string={name: "a&b=c \N{SNOWMAN}"})) == [found["run"]["id"]]
    assert ids(client.get("/runs", query_string={name: "none"})) == []
    assert ids(client.get("/runs", query_string={name: ""})) == []  # what a script asks for whose variable is not set


def test_other_filters(client, run, collector, labels):
    run()
    collector.fails["start"] = OSError("no")
    assert client.post("/start", json=labels).status_code == 503

    assert len(ids(client.get("/runs?machine=m"))) == 2
    assert ids(client.get("/runs?machine=other")) == []
    (failed,) = client.get("/runs?result=failed").json["runs"]
    assert failed["failure"] == "the collector could not start: no"
    assert len(ids(client.get("/runs?result=finished&commit=abc123"))) == 1


def test_pages(client, run):
    """`next` keeps the filter, and ends with the last page."""
    made = [run(commit="a b")["run"]["id"] for _ in range(5)]
    run()
    pages, path = [], "/runs?commit=a+b&limit=2"
    while path:
        answer = client.get(path)
        pages.append(ids(answer))
        path = answer.json["next"]
        assert path is None or parse_qs(urlsplit(path).query).keys() == {"commit", "limit", "before"}

    assert pages == [[made[4], made[3]], [made[2], made[1]], [made[0]]]


def test_a_page_that_is_just_full(client, run):
    run()
    run()

    assert client.get("/runs?limit=2").json["next"] is None


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        (
            "comit=x",
            "comit",
            "are scenario, impl, variant, commit, dataset, machine, result, before, limit; choose one of those",
        ),
        ("limit=0", "limit", "send it as a whole number from 1 to 1000"),
        ("limit=1001", "limit", "send it as a whole number from 1 to 1000"),
        ("limit=x", "limit", "send it as a whole number from 1 to 1000"),
        ("result=won", "result", "send it as finished, failed, interrupted or running"),
        ("commit=a&commit=b", "commit", "is given more than once; send each filter once"),
        ("commit=%00", "commit", "has characters that do not print"),
        ("before=", "before", "send it as the id of a run, as in `next`"),
        ("before=%00", "before", "has characters that do not print"),
        ("commit=" + "x" * 201, "commit", "send it as a string of at most 200 printable characters"),
    ],
)
def test_a_wrong_filter(client, query, field, says):
    """Refused, with what is right: an answer with too many runs would look like one."""
    answer = client.get(f"/runs?{query}")

    assert answer.status_code == 422
    (error,) = answer.json["errors"]
    assert error["field"] == field
    assert says in f"{error['message']}; {error['remedy']}"
    assert answer.json["detail"] == f"{field}: {error['message']}"


def test_delete(client, run):
    run_id = run()["run"]["id"]
    answer = client.delete(f"/runs/{run_id}")

    assert (answer.status_code, answer.data) == (204, b"")
    assert client.get("/report").status_code == 404
    for again in (client.delete, client.get):
        answer = again(f"/runs/{run_id}")
        assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
        assert answer.json["detail"] == f"no run {run_id} is stored"
        assert "GET /runs" in answer.json["remedy"]


@pytest.mark.parametrize("run_id", ["%00", "%ff", "..%2f..", "x" * 5000, "'; DROP TABLE runs; --", "\N{SNOWMAN}"])
def test_what_no_run_is_called(client, run, run_id):
    """Whatever it is: there is no such run."""
    run()

    assert client.get(f"/runs/{run_id}").status_code == 404
    assert client.delete(f"/runs/{run_id}").status_code == 404
    assert len(ids(client.get("/runs"))) == 1


def test_the_run_that_is_on_is_not_deleted(client, labels):
    run_id = client.post("/start", json=labels).json["run_id"]
    answer = client.delete(f"/runs/{run_id}")

    assert (answer.status_code, answer.json["remedy"]) == (409, "POST /stop ends it")


def test_a_stopped_run_that_is_not_stored(client, run, store, monkeypatch):
    """It is answered all the same, with the evidence, and says why; so does /status."""

    def refuse(*_):
        store._reasons["write"] = "disk full"
        raise StoreError("disk full")

    monkeypatch.setattr(store, "save", refuse)
    evidence = run()

    assert evidence["exec"] == {"exec_count": 53}
    assert evidence["not_kept"] == "disk full"
    assert client.get("/status").json["store"] == {
        "kind": "sqlite",
        "state": "down",
        "location": store.status().location,
        "reason": "disk full",
        "runs": 0,
        "bytes": store.status().bytes,
    }


def test_a_stopped_run_that_is_stored_has_no_not_kept(client, run, store):
    assert "not_kept" not in run()
    shown, status = client.get("/status").json["store"], store.status()
    assert shown == {"kind": "sqlite", "state": "up", "location": status.location, "runs": 1, "bytes": status.bytes}


@pytest.mark.parametrize("path", ["/runs", "/runs/x"])
def test_a_store_that_cannot_be_read(client, store, monkeypatch, path):
    def fail(*_):
        raise StoreError("the disk is on fire; put it out")

    monkeypatch.setattr(store, "find", fail)
    monkeypatch.setattr(store, "get", fail)
    answer = client.get(path)

    assert (answer.status_code, answer.json["detail"]) == (503, "the disk is on fire; put it out")
    assert "/status" in answer.json["remedy"]


def test_an_agent_that_keeps_nothing(collector, labels):
    """/stop answers as always, and /runs says how to store runs."""
    client = create_app(Runs(collector, "m"), lambda _: (b"", "")).test_client()
    client.post("/start", json=labels)

    assert "not_kept" not in client.post("/stop").json
    assert client.get("/status").json["store"] == {"kind": "none", "state": "off"}
    answer = client.get("/runs")
    assert (answer.status_code, answer.json["detail"]) == (
        503,
        "this agent stores no runs; start it without --store none",
    )
