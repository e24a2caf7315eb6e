"""The API document says what the agent does: all routes, and real answers fit it."""

import re
from pathlib import Path

import pytest
from flask import Flask
from pydantic import TypeAdapter

from chainbench_agent.collector.mock import MockCollector
from chainbench_agent.probes import CATALOG
from chainbench_agent.runs.lifecycle import Runs
from chainbench_agent.server import slow_client_guard, worker
from chainbench_agent.web import parser_errors
from chainbench_agent.web.app import create_app
from chainbench_agent.web.openapi import document
from chainbench_agent.web.request_models import RunsQuery
from chainbench_agent.web.response_models import Reported, Started, Status


@pytest.fixture
def api(client):
    return client.get("/openapi.json").json


def test_every_route_is_in_it(app, api):
    routes = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }

    assert {(path, method) for path, calls in api["paths"].items() for method in calls} == routes


def test_what_is_answered_before_any_route_is_in_each(api):
    """A client that is slow, one too many, or does not speak HTTP is refused before its route is known."""
    sources = "".join(Path(module.__file__).read_text() for module in (slow_client_guard, worker))
    statuses = set(re.findall(r"(?:refusal\(|_refuse\([^\d]*, )(\d{3})", sources))
    statuses |= {str(status) for _, (status, *_) in parser_errors._PROBLEMS} | {"505"}

    assert statuses == {"400", "408", "413", "417", "431", "500", "501", "503", "505"}
    statuses.remove("413")  # it is for bodies
    for calls in api["paths"].values():
        for call in calls.values():
            assert statuses <= call["responses"].keys()


def test_each_call_may_be_asked_with_a_token_and_without(api):
    """An agent's settings decide whether it requires a token; clients are made from the document."""
    assert api["security"] == [{}, {"token": []}]
    scheme = api["components"]["securitySchemes"]["token"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


def test_a_route_that_says_nothing_is_found():
    """Nobody forgets one."""
    app = Flask("x", static_folder=None)
    app.add_url_rule("/silent", "silent", lambda: "")

    with pytest.raises(TypeError, match="no @operation says what it does"):
        document(app)


def test_every_reference_leads_somewhere(api):
    names = set(re.findall(r"#/components/schemas/(\w+)", str(api)))

    assert names <= api["components"]["schemas"].keys()
    assert {"StartRequest", "Evidence", "Problem"} <= names


def test_bodies_come_from_the_models(api):
    """The schema has the fields that are required, and the values that each may have."""
    start = api["components"]["schemas"]["StartRequest"]

    assert start["required"] == ["scenario", "impl", "variant", "commit", "dataset"]
    assert start["properties"]["commit"]["maxLength"] == 200
    assert start["properties"]["pid"]["anyOf"][0] == {"maximum": 4194304, "minimum": 1, "type": "integer"}


def test_filters_and_paths_come_from_what_is_taken(api):
    """Each filter of the list with what it may be, and the id of a run."""
    filters = {one["name"]: one for one in api["paths"]["/runs"]["get"]["parameters"]}

    assert filters.keys() == RunsQuery.model_fields.keys()
    assert {one["in"] for one in filters.values()} == {"query"}
    assert (filters["limit"]["schema"]["maximum"], filters["limit"]["schema"]["default"]) == (1000, 50)
    for method in ("get", "delete"):
        (run_id,) = api["paths"]["/runs/{run_id}"][method]["parameters"]
        assert (run_id["name"], run_id["in"], run_id["required"]) == ("run_id", "path", True)


def test_sections_come_from_the_modules(api):
    """Each with every key that it may have."""
    sections = api["components"]["schemas"]["Evidence"]["properties"]

    for module in CATALOG:
        assert sections[module.section_key]["description"] == module.question
    assert sections["exec"]["properties"]["exec_count"] == {
        "description": "Programs started by a successful execve.",
        "type": "integer",
    }
    assert "sections" not in sections


def test_the_models_of_answers_have_every_field(client, labels):
    """And no other: what the document says of an answer is all that there is."""
    answers = {
        Started: client.post("/start", json=labels).json,
        Status: client.get("/status").json,
        Reported: client.post("/report", json={**labels, "baseline_ms": 2, "optimized_ms": 1, "gain_pct": 50}).json,
    }
    for model, answer in answers.items():
        TypeAdapter(model).validate_python(answer, strict=True)
        assert answer.keys() <= model.model_fields.keys()
        assert {name for name, field in model.model_fields.items() if field.is_required()} <= answer.keys()


def test_the_page_names_everything(client, api):
    """For people, without anything from elsewhere."""
    page = client.get("/docs")

    assert page.content_type == "text/html; charset=utf-8"
    for path, calls in api["paths"].items():
        assert path in page.text
        for call in calls.values():
            assert call["summary"] in page.text
    assert "`" not in page.text
    assert "as <code>POST /stop</code> answered it" in page.text
    for name in api["components"]["schemas"]:
        assert f'id="{name}"' in page.text
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.text)


def test_evidence_of_all_modules_fits(labels):
    """The whole of it, made up."""
    runs = Runs(MockCollector("", "", CATALOG), "m")
    client = create_app(runs, lambda _: (b"", "")).test_client()
    client.post("/start", json=labels)
    evidence = client.post("/stop").json
    schema = client.get("/openapi.json").json["components"]["schemas"]["Evidence"]

    assert set(schema["required"]) <= evidence.keys()
    for module in CATALOG:
        assert evidence[module.section_key].keys() & {"unavailable", "sources"}


def test_stop_and_report_answer_the_same(labels):
    """Histograms as well: they are slots in nanoseconds inside the agent, and buckets in microseconds in JSON."""
    client = create_app(Runs(MockCollector("", "", CATALOG), "m"), lambda _: (b"", "")).test_client()
    client.post("/start", json=labels)
    stopped = client.post("/stop").json

    assert stopped == client.get("/report").json["evidence"]
    assert all(slot.keys() == {"bucket_us", "count"} for slot in stopped["runqlat"]["histogram"])


def test_the_page_says_of_what_time_a_running_run_is(client):
    """Its stored figures, the duration included, are as old as its last checkpoint."""
    assert "Of one that is running: when it was last written to the store." in client.get("/docs").text
