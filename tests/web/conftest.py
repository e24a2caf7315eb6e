from contextlib import suppress

import pytest

from chainbench_agent.collector.fake import FakeCollector
from chainbench_agent.errors import AgentError
from chainbench_agent.runs import Runs
from chainbench_agent.web.app import create_app


@pytest.fixture
def labels():
    """What the runner in the wild sends."""
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
    with suppress(AgentError):  # nobody watches a run of a test that is over
        runs.stop()


@pytest.fixture
def app(runs):
    return create_app(runs, lambda accept: (f"accept {accept}\n".encode(), "text/plain; version=0.0.4"))


@pytest.fixture
def client(app):
    return app.test_client()
