"""The daemon's processes and signals, with a collector that follows a script."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from chainbench_agent.errors import InputError
from chainbench_agent.server import listen

LABELS = {"scenario": "baseline", "impl": "python", "variant": "numpy", "commit": "abc123", "dataset": "sha256hash"}
PROMPTLY_S = 3
LONG_S = 60
AGENT = """
import sys
from chainbench_agent.collector.fake import FakeCollector
from chainbench_agent.errors import AgentError, SetupError
from chainbench_agent.server import serve
from chainbench_agent.settings import load_settings

def open_collector(settings):
    OPEN

try:
    serve(load_settings(port=sys.argv[1], log_level=sys.argv[2]), open_collector)
except AgentError as error:
    sys.exit(str(error))
"""


class Daemon:
    """A daemon whose collector is what the lines of `opening` return."""

    def __init__(self, tmp_path, opening, port=0, log_level="info"):
        script = AGENT.replace("OPEN", opening)
        self._log = tmp_path / "log"
        with self._log.open("w") as log:
            # gunicorn leaves a file to the interpreter when a worker does not come up
            warnings = ["-W", "error", "-W", "ignore::ResourceWarning"]
            command = [sys.executable, *warnings, "-c", script, str(port), log_level]
            self.process = subprocess.Popen(command, stderr=log, start_new_session=True)

    @property
    def log(self):
        return self._log.read_text()

    def until(self, condition):
        """What `condition` returns as soon as that is something."""
        deadline = time.monotonic() + LONG_S
        while time.monotonic() < deadline:
            if result := condition():
                return result
            time.sleep(0.02)
        return pytest.fail(f"never happened; the log:\n{self.log}")

    @property
    def url(self):
        """Where it serves, when it does.  The log says so: with port 0 only the agent knows."""
        line = self.until(lambda: [line for line in self.log.splitlines() if "serving on" in line])[0]
        return line.rpartition(" ")[2]

    def post(self, path, **body):
        return requests.post(self.url + path, json=body or None, timeout=LONG_S)

    def get(self, path):
        return requests.get(self.url + path, timeout=LONG_S)

    def worker(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children) if children else None

    def evidence_in_log(self):
        lines = [line for line in self.log.splitlines() if "ended with the shutdown: {" in line]
        return [json.loads(line[line.index("{") :]) for line in lines]


@pytest.fixture
def daemon(tmp_path):
    daemons = []

    def start(opening="return FakeCollector()", **options):
        daemons.append(Daemon(tmp_path, opening, **options))
        return daemons[-1]

    yield start
    for one in daemons:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()


def to_master(daemon, signum):
    daemon.process.send_signal(signum)


def to_all(daemon, signum):
    """As a terminal does it, and systemd."""
    os.killpg(daemon.process.pid, signum)


@pytest.mark.parametrize("send", [to_master, to_all])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_a_signal_ends_the_run_and_the_daemon(daemon, signum, send):
    """The evidence of the run in progress is in the log; the end is prompt and is no failure."""
    agent = daemon()
    run_id = agent.post("/start", **LABELS).json()["run_id"]
    began = time.monotonic()
    send(agent, signum)

    assert agent.process.wait(LONG_S) == 0
    assert time.monotonic() - began < PROMPTLY_S
    (evidence,) = agent.evidence_in_log()
    assert (evidence["run"]["id"], evidence["run"]["ended_by"]) == (run_id, "shutdown")
    assert evidence["exec"] == {"exec_count": 53}
    assert "Traceback" not in agent.log


def test_a_client_that_says_nothing_does_not_hold_the_daemon_up(daemon):
    agent = daemon()
    host, port = agent.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as silent, socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /start HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
        assert agent.get("/status").ok
        began = time.monotonic()
        to_master(agent, signal.SIGTERM)

        assert agent.process.wait(LONG_S) == 0
        assert time.monotonic() - began < PROMPTLY_S
        assert silent


def test_a_stop_under_way_is_answered(daemon):
    """The signal comes while the collector stops; the client still gets its evidence."""
    slow_stop = """
    import os, signal
    class Slow(FakeCollector):
        def stop(self):
            os.kill(os.getppid(), signal.SIGTERM)
            super().stop()
    return Slow()
"""
    agent = daemon(slow_stop)
    agent.post("/start", **LABELS)

    assert agent.post("/stop").json()["run"]["ended_by"] == "stop"
    assert agent.process.wait(LONG_S) == 0
    assert agent.evidence_in_log() == []


def test_signals_that_would_make_a_second_worker_are_ignored(daemon):
    agent = daemon()
    agent.get("/status")
    worker = agent.worker()
    for signum in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2):
        to_master(agent, signum)
    to_master(agent, signal.SIGCHLD)  # handled after those: signals queue

    assert agent.get("/status").json()["agent"]["pid"] == worker == agent.worker()


def test_a_worker_that_dies_is_replaced(daemon):
    """With an agent that knows of no run."""
    agent = daemon()
    agent.post("/start", **LABELS)
    dead = agent.worker()
    os.kill(dead, signal.SIGKILL)
    agent.until(lambda: agent.worker() not in {None, dead})

    assert agent.get("/status").json()["status"] == "idle"


def test_an_agent_that_cannot_be_built_ends_with_one_sentence(daemon):
    agent = daemon('raise SetupError("BCC is missing; as root: apt-get install python3-bpfcc")')

    assert agent.process.wait(LONG_S) == 3
    (line,) = agent.log.splitlines()
    assert line.endswith("ERROR   BCC is missing; as root: apt-get install python3-bpfcc")


def test_a_bug_while_building_ends_the_daemon_as_well(daemon):
    """Not a loop of workers; and the traceback is there for us."""
    agent = daemon("return 1 / 0")

    assert agent.process.wait(LONG_S) == 3
    assert agent.log.count("ZeroDivisionError: division by zero") == 1


def test_a_port_in_use_ends_with_one_sentence(daemon):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        agent = daemon(port=port)

        assert agent.process.wait(LONG_S) == 1
    assert agent.log.splitlines() == [
        f"port: cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --host and --port"
    ]


@pytest.mark.parametrize(
    ("host", "says"), [("192.0.2.1", "Cannot assign"), ("no such host", "not known"), ("a..b", "codec failed")]
)
def test_an_address_that_is_not_ours(host, says):
    with pytest.raises(InputError, match=rf"cannot listen on {host}:9090: .*{says}.*--host"):
        listen(host, 9090)


def test_ipv6():
    with listen("::1", 0) as listener:
        assert listener.getsockname()[0] == "::1"


def test_of_100_simultaneous_starts_exactly_one_wins(daemon):
    agent = daemon()
    url = agent.url
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: requests.post(f"{url}/start", json=LABELS, timeout=LONG_S), range(100)))

    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 99


def test_metrics_of_a_run(daemon):
    agent = daemon()
    agent.post("/start", **LABELS)
    running = agent.get("/metrics").text
    agent.post("/stop")

    for text in (running, agent.get("/metrics").text):
        assert 'chainbench_exec_count_total{commit="abc123",' in text


def test_there_is_no_access_log(daemon):
    agent = daemon()
    agent.get("/status")
    agent.get("/nowhere")
    to_master(agent, signal.SIGTERM)
    agent.process.wait(LONG_S)

    assert [line.split(maxsplit=3)[3].split(" http")[0] for line in agent.log.splitlines()] == ["serving on"]


def test_debugging_shows_what_gunicorn_does(daemon):
    agent = daemon(log_level="debug")
    agent.get("/status")

    assert "Booting worker" in agent.log


def test_runs_sample_as_the_agent_was_told(daemon, monkeypatch):
    """Unless their start says otherwise."""
    monkeypatch.setenv("CHAINBENCH_SAMPLE_INTERVAL", "7")
    agent = daemon()
    intervals = []
    for said in ({}, {"sample_interval": 3}):
        agent.post("/start", **LABELS, **said)
        intervals.append(agent.post("/stop").json()["run"]["sample_interval"])

    assert intervals == [7, 3]
