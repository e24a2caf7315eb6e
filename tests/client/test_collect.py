"""`with agent.collect(...)`: the run ends with its body, and its evidence is not lost, whatever happens to either."""

import json
import os
import signal
import threading
import time

import pytest
from daemon import LABELS, LONG_S

from chainbench_agent.client import Agent, ProblemError, RunLostError

OTHERS = {**LABELS, "scenario": "another"}
SLOW_STOP = """
    import threading
    held = threading.Event()
    threading.Timer(1.5, held.set).start()
    return FakeCollector(holds={'stop': held})
"""
TARGET_GONE = """
    from chainbench_agent.runs import running
    running.TARGET_GONE_S = 0
    return FakeCollector(target_gone=True)
"""
MOCK = """
    from chainbench_agent.collector.mock import MockCollector
    from chainbench_agent.probes import CATALOG
    return MockCollector('no BTF', 'boot another kernel', CATALOG)
"""
FAILING_STOP = "return FakeCollector(fails={'stop': AgentError('its maps are full')})"


class BodyError(Exception):
    pass


def end_by_itself(client):
    """Wait until no run is active, and the last one is stopped."""
    deadline = time.monotonic() + LONG_S
    while client.status()["status"] != "idle":
        assert time.monotonic() < deadline, "the run never ended"
        time.sleep(0.02)


def run_another(client):
    client.start(**OTHERS)
    client.stop()


def stop_and_run_another(client):
    client.stop()
    run_another(client)


def kill(agent):
    os.killpg(agent.process.pid, signal.SIGKILL)
    agent.process.wait()


def kill_worker(agent):
    """The master replaces it."""
    worker = agent.worker()
    os.kill(worker, signal.SIGKILL)
    agent.until(lambda: agent.worker() not in (None, worker))


def kill_worker_after_a_checkpoint(agent, run):
    agent.until(lambda: agent.client.run(run.id)["evidence"])
    kill_worker(agent)


def test_the_evidence_of_a_body(daemon):
    client = daemon().client
    with client.collect(**LABELS, pid=os.getpid(), probes=["exec"]) as run:
        assert client.status()["run_id"] == run.id
        assert run.started["target"] == {"kind": "pid", "pid": os.getpid()}
        with pytest.raises(RunLostError, match=f"run {run.id}: .* at the end of the with statement"):
            _ = run.evidence

    assert client.status()["running"] is False
    assert run.evidence["run"]["id"] == run.id
    assert run.evidence["exec"]["exec_count"] == 53


def test_made_up_evidence(daemon):
    """An agent without eBPF answers with mock data, which say so."""
    with daemon(MOCK).client.collect(**LABELS) as run:
        assert run.started["available"] is False

    assert (run.evidence["available"], run.evidence["source"]) == (False, "mock")


@pytest.mark.parametrize("raised", [BodyError, KeyboardInterrupt, SystemExit])
def test_a_body_that_raises(daemon, raised):
    """Its exception is the one that is raised; the run has ended, with its evidence."""
    client = daemon().client
    with pytest.raises(raised) as caught, client.collect(**LABELS) as run:
        raise raised("of the body")

    assert caught.value.args == ("of the body",)
    assert not hasattr(caught.value, "__notes__")
    assert client.status()["running"] is False
    assert run.evidence["run"]["id"] == run.id


def test_a_body_that_raises_and_a_stop_that_fails(daemon):
    """The body's exception, with a note about the stop."""
    client = daemon(FAILING_STOP).client
    with pytest.raises(BodyError) as caught, client.collect(**LABELS) as run:
        raise BodyError

    (note,) = caught.value.__notes__
    assert note.startswith(f"run {run.id}: ")


def test_another_run_is_on(daemon):
    """The body is not entered, and the other run goes on."""
    client = daemon().client
    other = client.start(**OTHERS)["run_id"]

    with pytest.raises(ProblemError, match=f"409 .*{other}"), client.collect(**LABELS):
        pytest.fail("the body was entered")
    assert client.status()["run_id"] == other


def test_a_run_that_ends_by_itself(daemon):
    """After its longest duration: without a store, /report still has its evidence."""
    client = daemon().client
    with client.collect(**LABELS, max_duration_s=0.05) as run:
        end_by_itself(client)

    assert run.evidence["run"]["id"] == run.id
    assert run.evidence["run"]["ended_by"] == "max_duration"


def test_another_run_began_meanwhile(daemon, tmp_path):
    """It goes on: the evidence of the one that ended comes from the store."""
    client = daemon(store="sqlite", state_dir=tmp_path / "state").client
    with client.collect(**LABELS, max_duration_s=0.05) as run:
        end_by_itself(client)
        run_another(client)
        other = client.start(**OTHERS)["run_id"]

    assert run.evidence["run"]["ended_by"] == "max_duration"
    assert client.status()["run_id"] == other


def test_another_run_ended_meanwhile_without_a_store(daemon):
    """The agent remembers only the latest run: the other's evidence is not taken for this one's."""
    client = daemon().client
    with pytest.raises(RunLostError, match="has no evidence of it") as caught, client.collect(**LABELS) as run:
        stop_and_run_another(client)

    assert (caught.value.run_id, caught.value.evidence) == (run.id, None)
    with pytest.raises(RunLostError):
        _ = run.evidence


def test_another_run_begins_between_status_and_stop(scripted, answer):
    """Its evidence, which /stop answers then, is not taken for this run's."""
    replies = {
        "POST /start": {"run_id": "mine"},
        "GET /status": {"run_id": "mine"},
        "POST /stop": {"run": {"id": "other"}},
        "GET /runs/mine": {"result": "finished", "evidence": {"run": {"id": "mine"}}},
    }
    server, client = scripted(*(answer(json.dumps(reply)) for reply in replies.values()))
    with client.collect(**LABELS) as run:
        pass

    assert run.evidence == {"run": {"id": "mine"}}
    assert server.calls == list(replies)


def test_somebody_else_has_stopped_it(daemon):
    client = daemon().client
    with client.collect(**LABELS) as run:
        stopped = client.stop()

    assert run.evidence == stopped


def test_it_is_being_stopped(daemon):
    """Another client has sent a /stop that takes long: `collect` waits for the evidence."""
    agent = daemon(SLOW_STOP)
    client = agent.client
    answers = []
    thread = threading.Thread(target=lambda: answers.append(agent.client.stop()))
    with client.collect(**LABELS) as run:
        thread.start()
        agent.until(lambda: client.status()["status"] == "stopping")
    thread.join()

    assert answers == [run.evidence]


def test_a_stop_that_takes_longer_than_the_timeout(daemon):
    """It is not sent again: the agent is asked until the run has ended."""
    agent = daemon(SLOW_STOP)
    with Agent(agent.url, timeout=1).collect(**LABELS) as run:
        pass

    assert run.evidence["run"]["ended_by"] == "stop"


def test_a_stop_that_never_ends(daemon):
    """The error says which run it was, and how to ask for it later."""
    agent = daemon("import threading\n    return FakeCollector(holds={'stop': threading.Event()})")
    with (
        pytest.raises(
            RunLostError, match=r"POST /stop: .* did not answer within 0\.3 s; once the agent answers"
        ) as error,
        Agent(agent.url, timeout=0.3).collect(**LABELS) as run,
    ):
        pass

    assert f"run({run.id!r})" in str(error.value)


@pytest.mark.parametrize("store", ["none", "sqlite"])
def test_a_collector_that_cannot_stop(daemon, tmp_path, store):
    """The error says what failed, and has the run's id, with a store and without."""
    client = daemon(FAILING_STOP, store=store, state_dir=tmp_path / "state").client
    with pytest.raises(RunLostError, match=r"run .*: .*its maps are full") as caught, client.collect(**LABELS) as run:
        pass

    assert caught.value.run_id == run.id


def test_the_agent_is_killed(daemon):
    """No agent, no evidence; what is raised says so at once."""
    agent = daemon()
    client = agent.client
    with pytest.raises(RunLostError, match=": Connection refused; once") as caught, client.collect(**LABELS) as run:
        kill(agent)

    assert (caught.value.run_id, caught.value.evidence) == (run.id, None)


def test_the_agent_is_restarted(daemon, tmp_path):
    """Its worker died in the run: the last checkpoint comes with the error."""
    agent = daemon(store="sqlite", state_dir=tmp_path / "state", checkpoint_s=0.1)
    client = agent.client
    with pytest.raises(RunLostError, match="it was interrupted: ") as caught, client.collect(**LABELS) as run:
        kill_worker_after_a_checkpoint(agent, run)

    assert caught.value.evidence["run"]["id"] == run.id
    assert run.evidence == caught.value.evidence


def test_the_agent_is_restarted_without_a_store(daemon):
    agent = daemon()
    client = agent.client
    with pytest.raises(RunLostError, match="has no evidence of it"), client.collect(**LABELS):
        kill_worker(agent)
