"""Whatever is sent, the answer says what is wrong and what to send instead."""

import pytest

from chainbench_agent.catalog.selection import MAX_SAMPLE_INTERVAL
from chainbench_agent.errors import InputError
from chainbench_agent.web.http_framing import LONGEST_BODY

JSON = "application/json"
WORD = "send it as a string of 1 to 200 printable characters"
LABELS = ("scenario", "impl", "variant", "commit", "dataset")
REPORT = {"impl": "i", "variant": "v", "commit": "c", "dataset": "d"}
TIMES = {"baseline_ms": 2, "optimized_ms": 1, "gain_pct": 50}


def problem(answer, status):
    """The problem document, after checking its form."""
    document = answer.get_json(force=True)
    assert answer.status_code == status, document
    assert answer.content_type == "application/problem+json"
    assert list(document)[:4] == ["type", "title", "status", "detail"]
    assert document["status"] == status
    assert document["detail"]
    assert "Traceback" not in answer.text
    return document


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (..., "is missing"),
        ("", "string should have at least 1 character"),
        (" ", "has characters that do not print"),
        ("a\nb", "has characters that do not print"),
        ("a\x00", "has characters that do not print"),
        ("x" * 201, "string should have at most 200 characters"),
        (7, "input should be a valid string"),
        (None, "input should be a valid string"),
        ({}, "input should be a valid string"),
    ],
)
def test_a_wrong_label(client, labels, name, value, message):
    """The field, what is wrong with it, and what it should be; and no run is on."""
    body = {key: text for key, text in (labels | {name: value}).items() if text is not ...}

    document = problem(client.post("/start", json=body), 422)

    assert document["errors"] == [{"field": name, "message": message, "remedy": WORD}]
    assert document["detail"] == f"{name}: {message}"
    assert client.get("/status").json["status"] == "idle"


def test_all_wrong_fields_are_named_at_once(client):
    document = problem(client.post("/start", json={"pid": 0}), 422)

    assert [error["field"] for error in document["errors"]] == [*LABELS, "pid"]


WANTED = {
    "pid": "send it as the number of a process",
    "cgroup": "send it as the path of a cgroup v2",
    "max_duration_s": "send it as a number of seconds, a week at most",
}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pid", 0, "input should be greater than or equal to 1"),
        ("pid", -1, "input should be greater than or equal to 1"),
        ("pid", (1 << 22) + 1, "input should be less than or equal to 4194304"),
        *(("pid", value, "input should be a valid integer") for value in ("7", 7.5, 7.0, True, [7], {"a": 1})),
        ("cgroup", "", "string should have at least 1 character"),
        ("cgroup", "/" * 4097, "string should have at most 4096 characters"),
        ("cgroup", "/a\x00b", "has characters that do not print"),
        *(("cgroup", value, "input should be a valid string") for value in (7, True, ["/a"])),
        *(("max_duration_s", value, "input should be greater than 0") for value in (0, -1, 0.0)),
        ("max_duration_s", 604801, "input should be less than or equal to 604800"),
        *(("max_duration_s", value, "input should be a valid number") for value in ("60", True, [60])),
    ],
)
def test_a_wrong_target_or_time(client, labels, name, value, message):
    """Nothing is guessed from it, and no run is on."""
    document = problem(client.post("/start", json=labels | {name: value}), 422)

    assert document["errors"] == [{"field": name, "message": message, "remedy": WANTED[name]}]
    assert client.get("/status").json["status"] == "idle"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_a_time_without_end(client, labels, value):
    words = ",".join(f'"{key}": "{text}"' for key, text in labels.items())
    body = f'{{{words},"max_duration_s": {value}}}'

    document = problem(client.post("/start", data=body, content_type=JSON), 422)

    assert [(error["field"], error["remedy"]) for error in document["errors"]] == [
        ("max_duration_s", WANTED["max_duration_s"])
    ]


def test_two_targets(client, labels):
    """It is unknown which of them was meant."""
    document = problem(client.post("/start", json=labels | {"pid": 7, "cgroup": "/a"}), 422)

    assert document["errors"] == [
        {"field": "cgroup", "message": "a pid was sent as well", "remedy": "send one of the two"}
    ]


def test_a_target_that_is_not_there(client, labels, collector, runs):
    """A mistake of who asks, not of the agent: the field is named, and nothing has failed."""
    sentence, remedy = "there is no process 7", "send the pid of a running process, as the runner sees it"
    collector.fails["start"] = InputError("pid", sentence, remedy)

    document = problem(client.post("/start", json=labels | {"pid": 7}), 422)

    assert document["detail"] == f"pid: {sentence}"
    assert document["errors"] == [{"field": "pid", "message": sentence, "remedy": remedy}]
    assert client.get("/status").json["status"] == "idle"
    assert "failure" not in client.get("/status").json
    assert runs.remembered() == ()


LOADED = "is not loaded; loaded is runqlat, runqlat:by_cpu, exec"
OTHERS = "choose among those, or start the agent with --probes for others"


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        (["memry"], f"memry {LOADED}"),
        (["exec", "cpu", "x"], f"cpu, x {LOADED}"),
        ("exec,cpu", f"cpu {LOADED}"),
        (["runqlat:by_class", "exec:by_cpu"], f"runqlat:by_class, exec:by_cpu {LOADED}"),
        (["all", "cpu"], f"cpu {LOADED}"),
    ],
)
def test_modules_that_are_not_loaded(client, labels, probes, message):
    """The answer names the unknown, the loaded, and how to load others; no run is on."""
    document = problem(client.post("/start", json=labels | {"probes": probes}), 422)

    assert document["errors"] == [{"field": "probes", "message": message, "remedy": OTHERS}]
    assert client.get("/status").json["status"] == "idle"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("probes", value) for value in ([], "", ",", 7, True, {"a": 1}, [[1]], [""], ["x" * 101], ["exec"] * 101)),
        *(("sample_interval", value) for value in (0, -1, MAX_SAMPLE_INTERVAL + 1, "10", 1.5, 2.0, True, [1])),
    ],
)
def test_what_cannot_be_a_plan(client, labels, name, value):
    """Ignored, it would give evidence of something else than was asked for."""
    document = problem(client.post("/start", json=labels | {name: value}), 422)

    ((field, remedy),) = {(error["field"], error["remedy"]) for error in document["errors"]}
    assert (field, remedy) == (name, PLAN[name])
    assert client.get("/status").json["status"] == "idle"


PLAN = {
    "probes": 'send it as a list of modules and module:options, such as ["exec", "cpu"]',
    "sample_interval": "send it as a whole number: 1 for every event, 10 for one in ten",
}


@pytest.mark.parametrize("name", ["baseline_ms", "optimized_ms", "gain_pct"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", '"1"', "true", "null", "[]", "1" * 500])
def test_a_wrong_number(client, runs, name, value):
    """Only finite numbers end up in Prometheus."""
    numbers = ",".join(f'"{key}": {value if key == name else 1}' for key in TIMES)
    words = ",".join(f'"{key}": "{text}"' for key, text in REPORT.items())

    document = problem(client.post("/report", data=f"{{{words},{numbers}}}", content_type=JSON), 422)

    assert [error["field"] for error in document["errors"]] == [name]
    assert document["errors"][0]["remedy"].startswith("send it as a number of ")
    assert runs.reports() == ()


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"baseline_ms": -1}, "send it as a number of milliseconds, 0 or more"),
        *(({"baseline_success": value}, "send it as true or false") for value in ("yes", "true", 2, -1, 1.0, [])),
        ({"scenario": 1}, "send it as a string of at most 200 printable characters"),
        ({"commit": ""}, WORD),
    ],
)
def test_a_wrong_report(client, change, remedy):
    document = problem(client.post("/report", json=REPORT | TIMES | change), 422)

    assert [(error["field"], error["remedy"]) for error in document["errors"]] == [(*change, remedy)]


@pytest.mark.parametrize("path", ["/start", "/report"])
@pytest.mark.parametrize(
    ("status", "sent", "says"),
    [
        (400, (b"", None), "the body is empty"),
        (400, (b"", JSON), "the body is empty"),
        (400, (b"{", JSON), "not valid JSON: EOF while parsing"),
        (400, (b"\xff", JSON), "not valid JSON"),
        (400, (b'{"impl": "\\ud800"}', JSON), "not valid JSON"),
        (400, (b"[" * 10_000, JSON), "not valid JSON: recursion limit"),
        (422, (b"[1]", JSON), "not an object"),
        (422, (b"null", JSON), "not an object"),
        (415, (b"{}", None), "not declared as JSON"),
        (415, (b"{}", "application/x-www-form-urlencoded"), "not declared as JSON"),
        (413, (b" " * (LONGEST_BODY + 1), JSON), "longer than 65536 bytes"),
    ],
)
def test_a_wrong_body(client, path, status, sent, says):
    body, content_type = sent
    document = problem(client.post(path, data=body, content_type=content_type), status)

    assert says in document["detail"]
    assert document["remedy"]


@pytest.mark.parametrize("length", [LONGEST_BODY, LONGEST_BODY + 1])
def test_a_long_body_of_unknown_length(client, length):
    """Chunked, it has no Content-Length to be refused by."""
    environment = {"wsgi.input_terminated": True}
    answer = client.post("/start", data=b" " * length, content_type=JSON, environ_overrides=environment)

    problem(answer, 413)


def test_json_with_a_charset_is_json(client, labels):
    assert client.post("/start", json=labels, content_type="application/json; charset=utf-8").status_code == 200


def test_an_unknown_path(client):
    document = problem(client.get("/strat{request}"), 404)

    assert document["detail"] == "there is no /strat{request} here"
    assert "POST /start" in document["remedy"]
    assert "GET /metrics" in document["remedy"]


def test_an_unknown_method(client):
    answer = client.get("/start")

    document = problem(answer, 405)
    assert document["detail"] == "/start does not take GET"
    assert "POST" in answer.headers["Allow"]


def test_no_run_to_stop(client):
    document = problem(client.post("/stop"), 409)

    assert (document["detail"], document["remedy"]) == ("no run is active", "POST /start begins one")


def test_a_run_is_on(client, labels):
    client.post("/start", json=labels)

    document = problem(client.post("/start", json=labels), 409)

    assert "scenario=baseline impl=python" in document["detail"]
    assert document["remedy"] == "POST /stop ends it"


def test_no_evidence_yet(client):
    document = problem(client.get("/report"), 404)

    assert document["detail"] == "no run has finished yet"


@pytest.mark.parametrize("call", ["start", "stop"])
def test_a_collector_that_fails(client, labels, collector, call):
    """The agent goes on: the next run can start."""
    collector.fails[call] = OSError("no such tracepoint")
    answers = [client.post("/start", json=labels), client.post("/stop")]

    document = problem(answers[["start", "stop"].index(call)], 503)

    assert "no such tracepoint" in document["detail"]
    assert "doctor" in document["remedy"]
    assert client.get("/status").json["status"] == "idle"


def test_a_bug_is_logged_and_not_shown(client, collector, caplog):
    collector.fails["status"] = KeyError("secret")

    document = problem(client.get("/status"), 500)

    assert "secret" not in str(document)
    assert "secret" in caplog.text
