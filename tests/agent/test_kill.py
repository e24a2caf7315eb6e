"""An agent that is killed at any moment loses no run that ended, and finds the one that was on interrupted."""

import itertools
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from daemon import LONG_S, Served

from chainbench_agent.client import ClientError

LABELS = {"scenario": "baseline", "impl": "python", "variant": "numpy", "dataset": "d"}
KILLS = 50
WHOM = ("worker", "both", "worker", "worker", "master")


class Killed(Served):
    """The agent with mock data, on one port and one store however often it is started."""

    def __init__(self, state):
        super().__init__(state, "--backend", "mock", "--checkpoint-s", "0.1", store="sqlite", state_dir=state)

    def pids(self):
        """The processes: the master and, as soon as it serves, the worker."""
        until(lambda: answer_of(self.client.status) or self.process.poll())
        return {"master": self.process.pid, "worker": self.worker()}

    def kill(self, whom, pids):
        for name in ("master", "worker") if whom == "both" else (whom,):
            os.kill(pids[name], signal.SIGKILL)
        if whom == "worker":
            until(lambda: not alive(pids["worker"]))
            return self.pids()
        self.process.wait(LONG_S)
        until(lambda: not alive(pids["worker"]))  # one that lost its master ends by itself
        return self.start().pids()


def answer_of(call, *arguments, **fields):
    """Return what a call of the client returns; None if it is refused, or not answered."""
    try:
        return call(*arguments, **fields)
    except ClientError:
        return None


def alive(pid):
    """A zombie is not alive: its parent may have ended, and init collects it in its own time."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition):
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.01)


@pytest.fixture
def agent(tmp_path):
    agent = Killed(tmp_path)
    yield agent.start()
    agent.end()


def random_moment(dice):
    """Wait for none or some of the time between checkpoints."""
    time.sleep(dice.choice((0, dice.uniform(0, 0.02), dice.uniform(0, 0.4))))


def asked_meanwhile(dice, call, *labels):
    """→ the answer, in a list, of a call that is under way; the list is empty if the agent dies over it."""
    answers = []
    thread = threading.Thread(target=lambda: answers.extend(filter(None, [answer_of(call, *labels)])))
    thread.start()
    time.sleep(dice.uniform(0, 0.01))  # a request takes a few milliseconds
    return thread, answers


@pytest.mark.timeout(900)
def test_a_request_that_is_killed_over_was_done_or_not(agent):
    """Fifty times, during a /stop or a /start: a run whose /stop was answered is stored as it was answered.

    A run whose /stop was cut off is finished or interrupted; one whose /start was cut off may not have begun.
    """
    dice = random.Random(59)  # noqa: S311 - to be repeatable
    pids, stopped, cut_off, started = agent.pids(), {}, set(), set()
    for number, whom in enumerate((WHOM * KILLS)[:KILLS]):
        labels = LABELS | {"commit": str(number)}
        if number % 3:
            run_id = agent.client.start(labels)["run_id"]
            thread, answers = asked_meanwhile(dice, agent.client.stop)
        else:
            thread, answers = asked_meanwhile(dice, agent.client.start, labels)
        pids = agent.kill(whom, pids)
        thread.join(LONG_S)
        if late := answer_of(agent.client.stop):  # the next worker took up a /start that waited
            stopped[late["run"]["id"]] = late
        if not number % 3:
            started |= {answer["run_id"] for answer in answers}
        elif answers:
            stopped[run_id] = answers[0]
        else:
            cut_off.add(run_id)

    stored = {run["id"]: run for run in agent.client.runs()}
    assert stopped.keys() | cut_off | started <= stored.keys()
    for run_id, evidence in stopped.items():
        assert stored[run_id]["result"] == "finished"
        assert agent.client.run(run_id)["evidence"] == evidence
    assert {stored[run_id]["result"] for run_id in cut_off} <= {"finished", "interrupted"}
    others = stored.keys() - stopped.keys() - cut_off
    assert {stored[run_id]["result"] for run_id in others} == {"interrupted"}


@pytest.mark.timeout(900)
def test_no_run_is_lost_however_often_the_agent_is_killed(agent, tmp_path):
    """Fifty times, worker, master or both: evidence is stored as answered, and the run that was on is interrupted."""
    dice = random.Random(53)  # noqa: S311 - to be repeatable
    pids, answered, begun, numbers = agent.pids(), {}, set(), itertools.count()
    for whom in (WHOM * KILLS)[:KILLS]:
        for _ in range(dice.randrange(3)):
            run_id = agent.client.start(LABELS, commit=str(next(numbers)))["run_id"]
            random_moment(dice)
            answered[run_id] = agent.client.stop()
        begun.add(agent.client.start(LABELS, commit=str(next(numbers)))["run_id"])
        random_moment(dice)
        pids = agent.kill(whom, pids)

    stored = {run["id"]: run for run in agent.client.runs()}
    assert {run["id"] for run in stored.values()} == answered.keys() | begun
    for run_id, evidence in answered.items():
        assert (stored[run_id]["result"], stored[run_id]["ended_by"]) == ("finished", "stop")
        assert agent.client.run(run_id)["evidence"] == evidence
    for run_id in begun:
        assert stored[run_id]["result"] == "interrupted"
        # A worker that lost its master had time to end its run.
        assert stored[run_id]["ended_by"] in {"agent_died", "shutdown"}
    assert not [path for path in tmp_path.iterdir() if "corrupt" in path.name]


@pytest.mark.parametrize("whom", ["worker", "both"])
def test_the_run_that_was_on_has_what_its_last_checkpoint_had(agent, whom):
    """Its evidence is that of a running run, a little shorter than the run was; /report and /metrics have it too."""
    pids = agent.pids()
    run_id = agent.client.start(LABELS, commit="c")["run_id"]
    began = time.monotonic()
    until(lambda: agent.client.run(run_id)["evidence"])
    agent.kill(whom, pids)
    lasted_ms = (time.monotonic() - began) * 1e3

    run = agent.client.run(run_id)
    assert (run["result"], run["ended_by"], run["source"]) == ("interrupted", "agent_died", "mock")
    assert 0 < run["duration_ms"] == run["evidence"]["run"]["duration_ms"] < lasted_ms
    assert run["evidence"]["exec"]["exec_count"] > 0
    assert run["environment"]["kernel"] == os.uname().release
    assert agent.client.latest() == run["evidence"]
    metrics = agent.client.metrics()
    assert 'chainbench_exec_count_total{commit="c",' in metrics
    assert (
        f'chainbench_runs_total{{commit="c",dataset="d",impl="python",machine="{run["machine"]}",result="inter'
        in metrics
    )
