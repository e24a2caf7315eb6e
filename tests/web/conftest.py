from contextlib import suppress
from functools import cache

import pytest
from flask.testing import FlaskClient
from werkzeug.exceptions import HTTPException

from chainbench_agent.collector.fake import FakeCollector
from chainbench_agent.errors import AgentError
from chainbench_agent.runs.lifecycle import Runs
from chainbench_agent.web.app import create_app
from chainbench_agent.web.openapi import document


@cache
def documented():
    """(path, method) → the statuses that the API document has for it."""
    runs = Runs(FakeCollector(), "m")
    paths = document(create_app(runs, lambda _: (b"", "")))["paths"]
    return {
        (path, method.upper()): set(map(int, call["responses"]))
        for path, calls in paths.items()
        for method, call in calls.items()
    }


@pytest.fixture(autouse=True)
def no_undocumented_answer(monkeypatch):
    """Whatever a test here provokes: schemathesis comes upon no run that is on, no store that fails, no page."""
    ask = FlaskClient.open

    def checked(client, *arguments, **others):
        answer = ask(client, *arguments, **others)
        with suppress(HTTPException):  # no such call
            adapter = client.application.url_map.bind("localhost")
            rule, _ = adapter.match(answer.request.path, answer.request.method, return_rule=True)
            path = rule.rule.replace("<", "{").replace(">", "}")
            known = documented().get((path, answer.request.method), {answer.status_code})
            assert answer.status_code in known, f"{answer.request.method} {path} → {answer.status_code}"
        return answer

    monkeypatch.setattr(FlaskClient, "open", checked)


@pytest.fixture
def labels():
    """Labels as an existing runner sends them."""
    return {
        "scenario": "baseline",
        "impl": "python",
        "variant": "numpy",
        "commit": "abc123",
        "dataset": "sha256hash",
    }


@pytest.fixture
def collector():
    return FakeCollector()


@pytest.fixture
def runs(collector):
    runs = Runs(collector, "m")
    yield runs
    with suppress(AgentError):  # else the run would outlive its test
        runs.stop()


@pytest.fixture
def app(runs):
    return create_app(runs, lambda accept: (f"accept {accept}\n".encode(), "text/plain; version=0.0.4"))


@pytest.fixture
def client(app):
    return app.test_client()
