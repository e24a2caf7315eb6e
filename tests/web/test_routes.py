"""Each call, as a benchmark runner makes it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from chainbench_agent.catalog.selection import MAX_SAMPLE_INTERVAL, Selection
from chainbench_agent.collector.fake import FakeCollector
from chainbench_agent.model.run_request import MAX_DURATION_S
from chainbench_agent.model.status import CollectorStatus
from chainbench_agent.runs.lifecycle import Runs
from chainbench_agent.web import caller
from chainbench_agent.web.app import create_app

REPORT = {
    "impl": "python",
    "variant": "numpy",
    "commit": "abc123",
    "dataset": "sha256hash",
    "baseline_ms": 120.5,
    "optimized_ms": 60,
    "gain_pct": 50.2,
}


@pytest.fixture
def connected(monkeypatch):
    """Process 70 is at the other end of a connection from 10.0.0.2."""
    monkeypatch.setattr(caller, "client_process", lambda peer: {("10.0.0.2", 40000): 70}[peer])


def test_start(client, labels, runs):
    """The answer names the run, and whether its numbers will be measured."""
    answer = client.post("/start", json=labels)

    assert answer.status_code == 200
    assert answer.json["status"] == "started"
    assert answer.json["run_id"] == runs.status().active.id
    assert labels.items() <= answer.json.items()
    assert (answer.json["machine"], answer.json["backend"], answer.json["available"]) == ("m", "ebpf", True)


@pytest.mark.parametrize(
    ("extra", "target"),
    [
        ({}, {"kind": "machine"}),
        ({"pid": 1}, {"kind": "pid", "pid": 1}),
        ({"pid": 1 << 22}, {"kind": "pid", "pid": 1 << 22}),
        ({"pid": 7, "cgroup": None}, {"kind": "pid", "pid": 7}),
        ({"cgroup": "/a.slice/b.scope"}, {"kind": "cgroup", "cgroup": "/a.slice/b.scope"}),
        ({"pid": None, "cgroup": "/"}, {"kind": "cgroup", "cgroup": "/"}),
    ],
)
@pytest.mark.usefixtures("connected")
def test_start_for_a_target(client, labels, collector, extra, target):
    """The answer says whose events will count; a pid means what it means to the process that asks."""
    connection = {"REMOTE_ADDR": "10.0.0.2", "REMOTE_PORT": "40000"}
    answer = client.post("/start", json=labels | extra, environ_overrides=connection)

    assert (answer.status_code, answer.json["target"]) == (200, target)
    assert collector.request.target.model_dump(exclude_none=True) == target
    assert collector.request.caller == (None if target["kind"] == "machine" else 70)


@pytest.mark.parametrize("connection", [{"REMOTE_ADDR": "", "REMOTE_PORT": ""}, {"REMOTE_ADDR": "10.0.0.2"}])
def test_start_over_a_connection_without_a_port(client, labels, collector, connection):
    """A unix socket: it is not known which process asks."""
    client.post("/start", json=labels | {"pid": 1}, environ_overrides=connection)

    assert collector.request.caller is None


@pytest.mark.parametrize(
    ("extra", "longest_s"),
    [({}, MAX_DURATION_S), ({"max_duration_s": 0.5}, 0.5), ({"max_duration_s": 604800}, 604800)],
)
def test_start_for_at_most_so_long(client, labels, monkeypatch, extra, longest_s):
    """An hour, unless the request says otherwise."""
    asked = []
    start = Runs.start
    monkeypatch.setattr(Runs, "start", lambda *how: asked.append(how[1].longest_s) or start(*how))

    assert client.post("/start", json=labels | extra).status_code == 200
    assert asked == [longest_s]


LOADED = ("runqlat", "runqlat:by_cpu", "exec")


@pytest.mark.parametrize(
    ("probes", "chosen"),
    [
        (None, ("runqlat", "exec")),
        ("all", ("runqlat", "exec")),
        (["all"], ("runqlat", "exec")),
        (["all", "runqlat:by_cpu"], LOADED),
        (["exec"], ("exec",)),
        ("exec, runqlat", ("runqlat", "exec")),
        (["exec", "exec"], ("exec",)),
        ("runqlat:by_cpu", ("runqlat", "runqlat:by_cpu")),
    ],
)
def test_start_with_some_of_the_modules(client, labels, collector, probes, chosen):
    """Named in the answer, in /status and in the evidence; an option brings its module, and has to be named."""
    answer = client.post("/start", json=labels | {"probes": probes})

    assert (answer.status_code, answer.json["probes"]) == (200, list(chosen))
    assert collector.request.selection == Selection(chosen, 1)
    assert client.get("/status").json["probes"] == list(chosen)
    assert client.post("/stop").json["run"]["probes"] == list(chosen)


@pytest.mark.parametrize(
    ("sent", "interval"),
    [({}, 7), ({"sample_interval": None}, 7), *(({"sample_interval": n}, n) for n in (1, MAX_SAMPLE_INTERVAL))],
)
def test_start_with_sampling(runs, labels, collector, sent, interval):
    """The interval of the request, else that of the agent."""
    client = create_app(runs, lambda _: (b"", ""), Selection(("all",), 7)).test_client()
    answer = client.post("/start", json=labels | sent)

    assert (answer.status_code, answer.json["sample_interval"]) == (200, interval)
    assert collector.request.selection.sample_interval == interval
    assert client.get("/status").json["sample_interval"] == interval
    assert client.post("/stop").json["run"]["sample_interval"] == interval


def test_runs_that_name_no_probes(runs, labels, collector):
    """They collect the agent's selection; a run that names some modules collects only these."""
    client = create_app(runs, lambda _: (b"", ""), Selection(("all", "runqlat:by_cpu"))).test_client()
    selected = []
    for sent in ({}, {"probes": None}, {"probes": ["all"]}, {"probes": ["exec"]}):
        client.post("/start", json=labels | sent)
        client.post("/stop")
        selected.append(collector.request.selection.probes)

    assert selected == [LOADED, LOADED, ("runqlat", "exec"), ("exec",)]


def test_a_run_that_ended_by_itself(client, labels, runs):
    """Nobody stopped it; its evidence waits where the late stop is sent to."""
    run_id = client.post("/start", json=labels | {"max_duration_s": 0.001}).json["run_id"]
    with runs._changed:
        assert runs._changed.wait_for(lambda: runs._phase == "idle", 60)

    late = client.post("/stop")

    assert late.status_code == 409
    assert late.json["detail"] == (
        f"no run is active: run {run_id} ended by itself (max_duration); GET /report has its evidence"
    )
    run = client.get("/report").json["evidence"]["run"]
    assert (run["id"], run["ended_by"]) == (run_id, "max_duration")


@pytest.mark.parametrize(
    "extra",
    [
        {"runner_version": "2.1", "anything": {"else": [1]}},
        {"pid": None, "cgroup": None, "probes": None, "max_duration_s": None, "sample_interval": None},
    ],
)
def test_start_ignores_what_changes_nothing(client, labels, extra):
    assert client.post("/start", json=labels | extra).status_code == 200


def test_stop(client, labels):
    """Evidence, its keys in the order that is made for reading."""
    run_id = client.post("/start", json=labels).json["run_id"]
    answer = client.post("/stop")

    assert answer.status_code == 200
    assert list(answer.json)[:7] == ["schema_version", "available", "source", "reason", "run", "target", "exec"]
    assert (answer.json["run"]["id"], answer.json["run"]["ended_by"]) == (run_id, "stop")
    assert answer.json["exec"] == {"exec_count": 53}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": b""},
        {"data": b"", "content_type": "application/x-www-form-urlencoded"},
        {"json": {}},
        {"data": b"\xff", "content_type": "application/json"},
    ],
)
def test_stop_reads_no_body(client, labels, body):
    """`curl -X POST`, with or without `-d ''`."""
    client.post("/start", json=labels)

    assert client.post("/stop", **body).status_code == 200


def test_report(client, runs):
    answer = client.post("/report", json=REPORT | {"optimized_success": True})

    assert answer.status_code == 200
    assert answer.json == {"status": "metrics_reported"}
    (report,) = runs.reports()
    assert (report.scenario, report.baseline_ms, report.optimized_ms, report.gain_pct) == ("", 120.5, 60, 50.2)
    assert (report.baseline_success, report.optimized_success) == (None, True)


@pytest.mark.parametrize(("sent", "kept"), [(True, True), (False, False), (1, True), (0, False), (None, None)])
def test_flags_are_truth_values_or_numbers(client, runs, sent, kept):
    """Runners in the wild send 0 and 1."""
    assert client.post("/report", json=REPORT | {"baseline_success": sent}).status_code == 200

    (report,) = runs.reports()
    assert report.baseline_success is kept


def test_the_evidence_of_the_latest_run(client, labels):
    client.post("/start", json=labels)
    evidence = client.post("/stop").json
    client.post("/start", json=labels)

    assert client.get("/report").json == {"evidence": evidence}


def test_status_when_idle(client):
    """Every module and hook says what it measures, or why it does not; the agent says what it costs."""
    status = client.get("/status").json

    assert (status["status"], status["running"]) == ("idle", False)
    about_the_run = ("run_id", "labels", "started_at", "elapsed_ms", "probes", "sample_interval")
    assert [status[key] for key in about_the_run] == [None] * 6
    assert status["modules"] == {
        "runqlat": {
            "state": "up",
            "options": {"by_cpu": "up", "by_class": "off"},
            "sources": {"histogram": "raw_tracepoint:sched_switch"},
        },
        "exec": {"state": "degraded", "unavailable": {"forks": "no tracepoint"}},
        "cpu": {"state": "off"},
    }
    assert status["hooks"] == {
        "sched_switch": {"source": "raw_tracepoint:sched_switch"},
        "fork": {"reason": "no tracepoint"},
    }
    assert status["details"] == {"kernel": "6.1.0"}
    assert status["agent"]["resident_kib"] > 1000
    assert status["agent"]["cpu_seconds"] > 0
    assert "reason" not in status


def test_status_of_a_run(client, labels):
    started = client.post("/start", json=labels).json
    status = client.get("/status").json

    assert (status["status"], status["running"], status["labels"]) == ("running", True, labels)
    assert (status["run_id"], status["started_at"]) == (started["run_id"], started["started_at"])
    assert status["elapsed_ms"] >= 0


def test_status_after_a_failure_says_why(client, labels, collector):
    collector.fails["start"] = OSError("no such tracepoint")
    client.post("/start", json=labels)

    assert "no such tracepoint" in client.get("/status").json["failure"]


class TestMock:
    @pytest.fixture
    def collector(self):
        return FakeCollector(CollectorStatus("mock", (), reason="no BTF", remedy="boot another kernel"))

    def test_mock_is_marked_everywhere(self, client, labels):
        """Made-up numbers cannot be taken for measured ones; how to get those is said."""
        said = {"backend": "mock", "available": False, "reason": "no BTF", "remedy": "boot another kernel"}

        assert said.items() <= client.get("/status").json.items()
        assert said.items() <= client.post("/start", json=labels).json.items()
        evidence = client.post("/stop").json
        assert (evidence["available"], evidence["source"], evidence["reason"]) == (False, "mock", "no BTF")


def test_metrics_passes_the_accept_header_on(client):
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})

    assert answer.text == "accept application/openmetrics-text\n"
    assert answer.content_type == "text/plain; version=0.0.4"


def test_status_answers_while_a_run_starts(app, labels, collector):
    collector.holds["start"] = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(app.test_client().post, "/start", json=labels)
        collector.entered["start"].wait(60)
        status = app.test_client().get("/status").json
        collector.holds["start"].set()

    assert (status["status"], status["running"], status["labels"], status["elapsed_ms"]) == (
        "starting",
        False,
        labels,
        0,
    )
    assert starting.result().status_code == 200


def test_of_100_simultaneous_starts_exactly_one_wins(app, labels):
    together = threading.Barrier(100)

    def start(number):
        together.wait(60)
        return app.test_client().post("/start", json=labels | {"commit": str(number)})

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(start, range(100)))

    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 99
    (winner,) = [answer.json for answer in answers if answer.status_code == 200]
    assert all(f"commit={winner['commit']} " in answer.json["detail"] for answer in answers if answer.json != winner)
