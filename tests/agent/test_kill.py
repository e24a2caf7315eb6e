"""An agent that is killed at any moment: no finished run is lost, and the active one is stored as interrupted."""

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests

LABELS = {"scenario": "baseline", "impl": "python", "variant": "numpy", "dataset": "d"}
LONG_S = 60
KILLS = 50
WHOM = ("worker", "both", "worker", "worker", "master")


class Agent:
    """The agent with mock data, on one port and one store however often it is started."""

    def __init__(self, state):
        self._log = (state / "log").open("ab")
        self._environment = os.environ | {"CHAINBENCH_STORE": "sqlite", "CHAINBENCH_STATE_DIR": str(state)}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.process = None

    def start(self):
        options = ["--port", str(self._port), "--backend", "mock", "--checkpoint-s", "0.1"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "chainbench_agent", "serve", *options], stderr=self._log, env=self._environment
        )
        return self.pids()

    def pids(self):
        """The pids of the master and, as soon as it serves, the worker."""
        until(lambda: self.ask("GET", "/status") or self.process.poll())
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return {"master": self.process.pid, "worker": int(children)}

    def ask(self, method, path, **body):
        """The JSON of a good answer; None if there is none, or another."""
        try:
            answer = requests.request(method, self.url + path, json=body or None, timeout=LONG_S)
        except requests.RequestException:
            return None
        return answer.json() if answer.ok else None

    def kill(self, whom, pids):
        for name in ("master", "worker") if whom == "both" else (whom,):
            os.kill(pids[name], signal.SIGKILL)
        if whom == "worker":
            until(lambda: not alive(pids["worker"]))
            return self.pids()
        self.process.wait(LONG_S)
        until(lambda: not alive(pids["worker"]))  # one that lost its master ends by itself
        return self.start()

    def end(self):
        if self.process:
            self.process.terminate()
            self.process.wait(LONG_S)
        self._log.close()


def alive(pid):
    """A zombie is not: whose child it was may be gone, and nobody else hurries to collect it."""
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
    agent = Agent(tmp_path)
    yield agent
    agent.end()


def random_moment(dice):
    """After the answer, at once or later: before, in the midst of and after checkpoints."""
    time.sleep(dice.choice((0, dice.uniform(0, 0.02), dice.uniform(0, 0.4))))


def asked_meanwhile(agent, dice, method, path, **body):
    """→ the answer, in a list, of a request that is under way; it is empty if the agent dies over it."""
    answers = []
    thread = threading.Thread(target=lambda: answers.extend(filter(None, [agent.ask(method, path, **body)])))
    thread.start()
    time.sleep(dice.uniform(0, 0.01))  # a request takes a few milliseconds
    return thread, answers


@pytest.mark.timeout(900)
def test_a_request_that_is_killed_over_was_done_or_not(agent):
    """Killed fifty times during /stop or /start: evidence that was answered is stored unchanged.

    A run whose /stop was cut off is finished or interrupted, and one whose /start was may not have begun.
    """
    dice = random.Random(59)  # noqa: S311 - to be repeatable
    pids, stopped, cut_off, started = agent.start(), {}, set(), set()
    for number, whom in enumerate((WHOM * KILLS)[:KILLS]):
        labels = LABELS | {"commit": str(number)}
        if number % 3:
            run_id = agent.ask("POST", "/start", **labels)["run_id"]
            thread, answers = asked_meanwhile(agent, dice, "POST", "/stop")
        else:
            thread, answers = asked_meanwhile(agent, dice, "POST", "/start", **labels)
        pids = agent.kill(whom, pids)
        thread.join(LONG_S)
        if late := agent.ask("POST", "/stop"):  # the next worker took up a /start that waited
            stopped[late["run"]["id"]] = late
        if not number % 3:
            started |= {answer["run_id"] for answer in answers}
        elif answers:
            stopped[run_id] = answers[0]
        else:
            cut_off.add(run_id)

    kept = all_runs(agent)
    assert stopped.keys() | cut_off | started <= kept.keys()
    for run_id, evidence in stopped.items():
        assert kept[run_id]["result"] == "finished"
        assert agent.ask("GET", f"/runs/{run_id}")["evidence"] == evidence
    assert {kept[run_id]["result"] for run_id in cut_off} <= {"finished", "interrupted"}
    assert {run["result"] for run_id, run in kept.items() if run_id not in stopped.keys() | cut_off} == {"interrupted"}


@pytest.mark.timeout(900)
def test_no_run_is_lost_however_often_the_agent_is_killed(agent, tmp_path):
    """Fifty times, worker, master or both: answered evidence is stored unchanged, an active run is interrupted."""
    dice = random.Random(53)  # noqa: S311 - to be repeatable
    pids, answered, begun, numbers = agent.start(), {}, set(), itertools.count()
    for whom in (WHOM * KILLS)[:KILLS]:
        for _ in range(dice.randrange(3)):
            run_id = agent.ask("POST", "/start", **LABELS, commit=str(next(numbers)))["run_id"]
            random_moment(dice)
            answered[run_id] = agent.ask("POST", "/stop")
        begun.add(agent.ask("POST", "/start", **LABELS, commit=str(next(numbers)))["run_id"])
        random_moment(dice)
        pids = agent.kill(whom, pids)

    kept = all_runs(agent)
    assert {run["id"] for run in kept.values()} == answered.keys() | begun
    for run_id, evidence in answered.items():
        assert (kept[run_id]["result"], kept[run_id]["ended_by"]) == ("finished", "stop")
        assert agent.ask("GET", f"/runs/{run_id}")["evidence"] == evidence
    for run_id in begun:
        assert kept[run_id]["result"] == "interrupted"
        assert kept[run_id]["ended_by"] in {"agent_died", "shutdown"}  # who lost its master had time to say so
    assert not [path for path in tmp_path.iterdir() if "corrupt" in path.name]


def all_runs(agent):
    runs, path = {}, "/runs?limit=97"
    while path:
        page = agent.ask("GET", path)
        runs |= {run["id"]: run for run in page["runs"]}
        path = page["next"]
    return runs


@pytest.mark.parametrize("whom", ["worker", "both"])
def test_the_run_that_was_on_has_what_its_last_checkpoint_had(agent, whom):
    """Its evidence is that of a running run, a little shorter than the run was; and /report and /metrics have it."""
    pids = agent.start()
    run_id = agent.ask("POST", "/start", **LABELS, commit="c")["run_id"]
    began = time.monotonic()
    until(lambda: agent.ask("GET", f"/runs/{run_id}")["evidence"])
    agent.kill(whom, pids)
    lasted_ms = (time.monotonic() - began) * 1e3

    run = agent.ask("GET", f"/runs/{run_id}")
    assert (run["result"], run["ended_by"], run["source"]) == ("interrupted", "agent_died", "mock")
    assert 0 < run["duration_ms"] == run["evidence"]["run"]["duration_ms"] < lasted_ms
    assert run["evidence"]["exec"]["exec_count"] > 0
    assert run["environment"]["kernel"] == os.uname().release
    assert agent.ask("GET", "/report")["evidence"] == run["evidence"]
    metrics = requests.get(f"{agent.url}/metrics", timeout=LONG_S).text
    assert 'chainbench_exec_count_total{commit="c",' in metrics
    assert (
        f'chainbench_runs_total{{commit="c",dataset="d",impl="python",machine="{run["machine"]}",result="inter'
        in metrics
    )
