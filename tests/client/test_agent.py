"""The calls of `Agent`, at a real daemon; and that it needs nothing of the daemon."""

import json
import subprocess
import sys
from http import HTTPStatus
from itertools import islice

import pytest
from daemon import LABELS

from chainbench_agent.client import ProblemError

ONLY_REQUESTS = """
import sys

OF_THE_DAEMON = {"bcc", "click", "flask", "gunicorn", "prometheus_client", "pydantic", "sqlalchemy"}

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OF_THE_DAEMON:
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
from chainbench_agent.client import Agent
Agent("unix:/run/chainbench.sock")
print(sorted(name for name in sys.modules if name.startswith("chainbench_agent")))
"""
MEASURED = {"baseline_ms": 187.8, "optimized_ms": 50.5, "gain_pct": 73.1}


def test_it_needs_only_requests():
    """Nothing of the daemon is imported, and nothing that only the daemon needs."""
    done = subprocess.run([sys.executable, "-c", ONLY_REQUESTS], capture_output=True, text=True, check=True)

    allowed = ("chainbench_agent", "chainbench_agent.client")
    loaded = json.loads(done.stdout.replace("'", '"'))
    assert "chainbench_agent.client.agent" in loaded
    assert [name for name in loaded if not (name in allowed or name.startswith("chainbench_agent.client."))] == []


def test_start_status_and_stop(daemon):
    """Each answer is that of the API, as it is."""
    agent = daemon().client
    started = agent.start(**LABELS, pid=1, probes=("exec",), sample_interval=7, max_duration_s=1800)

    assert LABELS.items() <= started.items()
    assert started["target"] == {"kind": "pid", "pid": 1}
    assert (started["probes"], started["sample_interval"]) == (["exec"], 7)
    assert (agent.status()["run_id"], agent.status()["labels"]) == (started["run_id"], LABELS)
    evidence = agent.stop()
    assert evidence["run"]["id"] == started["run_id"]
    assert evidence["exec"]["exec_count"] == 53
    assert agent.status()["running"] is False


@pytest.mark.parametrize("probes", ["exec,runqlat", ["exec", "runqlat"], ("exec", "runqlat")])
def test_modules_as_a_list_or_a_text(daemon, probes):
    assert daemon().client.start(LABELS, probes=probes)["probes"] == ["runqlat", "exec"]


def test_labels_as_a_mapping_and_as_keywords(daemon):
    """A keyword counts more."""
    started = daemon().client.start(LABELS, commit="def456")

    assert (started["scenario"], started["commit"]) == (LABELS["scenario"], "def456")


def test_a_cgroup(daemon):
    assert daemon().client.start(**LABELS, cgroup="/a")["target"] == {"kind": "cgroup", "cgroup": "/a"}


def test_the_latest_evidence(daemon):
    agent = daemon().client
    assert agent.latest() is None

    agent.start(**LABELS)
    stopped = agent.stop()

    assert agent.latest() == stopped


def test_a_refusal(daemon):
    """The error has what the problem document says: status, title, detail, remedy, and the field."""
    agent = daemon().client

    with pytest.raises(ProblemError) as caught:
        agent.start(**{**LABELS, "impl": ""})
    error = caught.value
    assert (error.status, error.title, error.field) == (422, HTTPStatus(422).phrase, "impl")
    assert error.detail.startswith("impl: ")
    assert error.remedy == "send it as a string of 1 to 200 printable characters"
    assert error.errors == [{"field": "impl", "message": error.detail.removeprefix("impl: "), "remedy": error.remedy}]
    assert str(error) == f"POST /start: 422 {error.detail}; {error.remedy}"

    with pytest.raises(ProblemError) as caught:
        agent.stop()
    assert (caught.value.status, caught.value.field, caught.value.errors) == (409, "", ())


def test_a_run_that_is_on_already(daemon):
    """It goes on, and the refusal names it."""
    agent = daemon().client
    started = agent.start(**LABELS)

    with pytest.raises(ProblemError, match=f"409 .*{started['run_id']}.*; POST /stop ends it"):
        agent.start(**LABELS)
    assert agent.status()["run_id"] == started["run_id"]


def test_a_label_that_is_misspelt(daemon, caplog):
    """One that the agent does not know is logged: it would be ignored in silence."""
    daemon().client.start(**LABELS, comit="abc")

    assert "did you mean commit" in caplog.text


def test_a_report(daemon):
    """It reaches /metrics; what is no JSON is not sent."""
    agent = daemon().client

    assert agent.report(**LABELS, **MEASURED) == {"status": "metrics_reported"}
    assert 'chainbench_gain_percent{commit="abc123"' in agent.metrics()
    with pytest.raises(ValueError, match="JSON"):
        agent.report(**LABELS, **{**MEASURED, "gain_pct": float("nan")})


def test_stored_runs(daemon, tmp_path):
    """All pages, the newest first, each page when it is needed; filters; one run; none after it is deleted."""
    agent = daemon(store="sqlite", state_dir=tmp_path / "state").client
    ids = []
    for number in range(53):
        ids.insert(0, agent.start(**{**LABELS, "commit": f"{number} & more"})["run_id"])
        agent.stop()

    assert [run["id"] for run in agent.runs()] == ids
    assert [run["id"] for run in islice(agent.runs(), 3)] == ids[:3]
    assert [run["id"] for run in agent.runs(commit="7 & more", result="finished")] == [ids[45]]
    assert [run["id"] for run in agent.runs(**LABELS)] == []
    assert agent.run(ids[0])["evidence"]["run"]["id"] == ids[0]
    agent.delete(ids[0])
    with pytest.raises(ProblemError, match=f"GET /runs/{ids[0]}: 404"):
        agent.run(ids[0])


@pytest.mark.parametrize("name", ["../status", "a?b", "a b", "%2e"])
def test_the_name_of_a_run_is_no_path(daemon, tmp_path, name):
    with pytest.raises(ProblemError, match="404 "):
        daemon(store="sqlite", state_dir=tmp_path / "state").client.run(name)
