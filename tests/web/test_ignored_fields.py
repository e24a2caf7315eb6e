"""The answer names the fields of a request that were ignored; the request is not refused."""

import logging

import pytest

from chainbench_agent.web.http_framing import LONGEST_BODY
from chainbench_agent.web.ignored_fields import MOST_NAMED

REPORT = {
    "impl": "i",
    "variant": "v",
    "commit": "c",
    "dataset": "d",
    "baseline_ms": 2,
    "optimized_ms": 1,
    "gain_pct": 50,
}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("probe", "probes"),
        ("Probes", "probes"),
        ("max_duration", "max_duration_s"),
        ("cgroups", "cgroup"),
        ("PID", "pid"),
    ],
)
def test_a_misspelt_field(client, labels, caplog, name, meant):
    """The run begins without it; the answer and a warning in the log say which name is known."""
    answer = client.post("/start", json=labels | {name: ["exec"]})
    sentence = f"{name} is not known and was ignored: did you mean {meant}?"

    assert (answer.status_code, answer.json["ignored"], answer.json["warnings"]) == (200, [name], [sentence])
    assert ("chainbench_agent.web.ignored_fields", logging.WARNING, f"POST /start: {sentence}") in caplog.record_tuples


def test_unknown_fields_of_a_runner(client, labels, caplog):
    """No known name is like it, so the log has no warning."""
    answer = client.post("/start", json=labels | {"runner_version": "2.1", "anything": {"else": [1]}})

    assert answer.json["ignored"] == ["runner_version", "anything"]
    assert answer.json["warnings"] == [f"{name} is not known and was ignored" for name in answer.json["ignored"]]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_nothing_is_ignored(client, labels):
    """Then the answers have neither list."""
    answers = [
        client.post("/start", json=labels),
        client.get("/status"),
        client.post("/stop", json={}),
        client.get("/report"),
        client.post("/report", json=REPORT),
    ]

    assert [answer.status_code for answer in answers] == [200] * 5
    assert not [answer.json for answer in answers if {"ignored", "warnings"} & set(answer.json)]


def test_a_report(client, runs):
    answer = client.post("/report", json=REPORT | {"baseline_sucess": 1})

    assert answer.json == {
        "status": "metrics_reported",
        "ignored": ["baseline_sucess"],
        "warnings": ["baseline_sucess is not known and was ignored: did you mean baseline_success?"],
    }
    assert runs.reports()[0].baseline_success is None


@pytest.mark.parametrize(
    ("body", "ignored", "warning"),
    [
        ({"json": {"probes": ["io"]}}, "probes", "probes is not known and was ignored"),
        ({"json": [1]}, "body", "body is not a JSON object, and was ignored: /stop takes no fields"),
        ({"data": b"\xff", "content_type": "application/json"}, "body", None),
        ({"data": b"x" * (LONGEST_BODY + 1), "content_type": "application/json"}, "body", None),
    ],
)
def test_a_stop_with_a_body(client, labels, body, ignored, warning):
    """It ends the run, whatever is sent."""
    client.post("/start", json=labels)
    answer = client.post("/stop", **body)

    assert (answer.status_code, answer.json["ignored"]) == (200, [ignored])
    assert answer.json["exec"] == {"exec_count": 53}
    assert warning is None or answer.json["warnings"] == [warning]


def test_fields_in_the_query(client, labels):
    """`curl -X POST '…/start?pid=7' -d @labels` would measure the whole machine."""
    answer = client.post("/start?pid=7&probe=exec", json=labels)

    assert answer.json["target"] == {"kind": "machine"}
    assert answer.json["ignored"] == ["pid", "probe"]
    assert answer.json["warnings"] == [
        "pid was sent in the query and ignored: send it in the body",
        "probe is no parameter of /start and was ignored",
    ]


@pytest.mark.parametrize("path", ["/status", "/report"])
def test_parameters_of_routes_without_any(client, labels, path):
    client.post("/start", json=labels)
    client.post("/stop")
    answer = client.get(f"{path}?impl=rust")

    assert (answer.status_code, answer.json["ignored"]) == (200, ["impl"])
    assert answer.json["warnings"] == [f"impl is no parameter of {path} and was ignored"]


def test_what_is_no_object_stays_as_it_is(client):
    """An exposition has no place for it, and the document is a document."""
    assert client.get("/metrics?x=1").text == client.get("/metrics").text
    assert client.get("/openapi.json?x=1").data == client.get("/openapi.json").data


def test_a_body_full_of_names(client, labels):
    """So many are named, and no name at full length."""
    sent = {f"name{number}" + "x" * 300: number for number in range(MOST_NAMED + 3)}
    answer = client.post("/start", json=labels | sent)

    assert len(answer.json["ignored"]) == MOST_NAMED
    assert answer.json["warnings"][-1] == "3 more were ignored"
    assert max(map(len, answer.json["ignored"])) == 100


def test_a_misspelt_label(client, labels):
    """It is refused because the right one is missing, and the answer sees why."""
    sent = {"scenaro" if name == "scenario" else name: value for name, value in labels.items()}
    (error,) = client.post("/start", json=sent).get_json(force=True)["errors"]

    assert (error["field"], error["message"]) == ("scenario", "is missing, perhaps scenaro is meant to be it")
