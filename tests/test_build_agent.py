"""The agent as its settings have it, without a server."""

import os
import time

import pytest

from chainbench_agent.agent import build_agent
from chainbench_agent.collector.fake import FakeCollector
from chainbench_agent.errors import InputError, SetupError
from chainbench_agent.evidence.model import Labels
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.model.stored_run import Query
from chainbench_agent.runs.active_run_record import ActiveRunRecord
from chainbench_agent.settings import load_settings
from chainbench_agent.store.sql import SqlStore


def a_run(agent, commit=""):
    agent.runs.start(RunRequest(labels=Labels(scenario="baseline", commit=commit)))
    return agent.runs.stop()


@pytest.fixture
def build(tmp_path):
    """`build(**settings)` → an agent on the state directory of this test; `collector`: what it opens."""
    built = []

    def make(collector=FakeCollector, record=None, store="sqlite", **settings):
        found = load_settings(store=store, state_dir=str(tmp_path), machine="m", **settings)
        built.append(build_agent(found, lambda _: collector(), record=record))
        return built[-1]

    yield make
    for agent in built:
        agent.close()


def test_a_run_is_collected_stored_and_exported(build):
    """The four parts know each other."""
    agent = build()
    evidence = a_run(agent)
    exposition, content_type = agent.metrics("")

    assert [run.id for run in agent.store.find(Query())] == [evidence.run.id]
    assert agent.collector.calls.count("start") == 1
    assert b'scenario="baseline"' in b"".join(exposition)
    assert b'chainbench_agent_process_start_time_seconds{process="agent"}' in b"".join(exposition)
    assert content_type.startswith("text/plain")


def test_it_remembers_as_many_label_sets_as_it_is_set_to(build):
    agent = build(store="none", max_kept_label_sets=7)
    for number in range(11):
        a_run(agent, str(number))

    assert [one.labels.commit for one in agent.runs.remembered()] == list(map(str, range(4, 11)))


def test_it_checkpoints_as_often_as_it_is_set_to(build):
    """A run that is on has evidence in the store before it ends."""
    agent = build(checkpoint_s=0.1)
    active = agent.runs.start(RunRequest())
    deadline = time.monotonic() + 60
    while agent.store.get(active.id).evidence is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_run_selects_that_names_nothing(build):
    selection = build(probes="exec,cpu", sample_interval=7).default_selection

    assert (selection.probes, selection.sample_interval) == (("all",), 7)


def test_a_run_that_was_on_when_the_process_before_was_killed(build):
    """The record says which, until the next run has started."""
    record = ActiveRunRecord()
    record.write("r1 (scenario=a)")
    agent = build(record=record, store="none")

    assert agent.runs.status().failure == "run r1 (scenario=a) was lost: the process that collected it died"


def test_closing_ends_the_run_and_releases_collector_and_store(build):
    agent = build()
    active = agent.runs.start(RunRequest())
    agent.close()

    assert agent.collector.calls[-1] == "close"
    assert agent.runs.status().phase == "idle"
    assert agent.store.get(active.id).summary.ended_by == "shutdown"


def test_no_store(build):
    with pytest.raises(InputError, match="store: "):
        build(store="mongodb://here")


def test_no_collector(build, monkeypatch):
    """Nothing stays open."""
    closed = []
    monkeypatch.setattr(SqlStore, "close", lambda _store: closed.append(os.getpid()))

    def fail():
        raise SetupError("no BTF")

    with pytest.raises(SetupError, match="no BTF"):
        build(fail)
    assert closed == [os.getpid()]
