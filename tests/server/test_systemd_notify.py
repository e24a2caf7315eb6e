"""The daemon's notifications to a service manager, over a socket of that protocol."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from daemon import LABELS, LONG_S

from chainbench_agent.client import Agent
from chainbench_agent.server import systemd_notify
from chainbench_agent.server.systemd_notify import SystemdNotify

AGENT = """
import os, sys, time
from chainbench_agent.server import gunicorn_server
from chainbench_agent.collector.fake import FakeCollector
from chainbench_agent.settings import load_settings

def open_collector(settings):
    time.sleep(BUILDING_S)
    return FakeCollector()

def load():
    return load_settings(sys.argv[1], port=0)

gunicorn_server.LOOP_S = 2
BREAK
gunicorn_server.serve(load(), open_collector, load)
"""
HANGS = """
class Worker(gunicorn_server.Worker):
    def wait_for_and_dispatch_events(self, timeout):
        while os.path.exists(sys.argv[1] + ".hang"):
            time.sleep(0.1)
        super().wait_for_and_dispatch_events(timeout)
gunicorn_server.Worker = Worker
"""
HOLDS = """
import threading
from chainbench_agent import agent
class Runs(agent.Runs):
    def __init__(self, *arguments, **others):
        super().__init__(*arguments, **others)
        threading.Thread(target=self._hold, daemon=True).start()
    def _hold(self):
        while True:
            time.sleep(0.1)
            if os.path.exists(sys.argv[1] + ".hang"):
                with self._changed:
                    while os.path.exists(sys.argv[1] + ".hang"):
                        time.sleep(0.1)
agent.Runs = Runs
"""


class Manager:
    """A service manager's end: `heard` has (seconds, pid of the sender, assignment)."""

    def __init__(self, tmp_path):
        self.path = str(tmp_path / "notify")
        self.config = tmp_path / "agent.toml"
        self.config.write_text("")
        self.log = tmp_path / "log"
        self.heard = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(self.path)

    @contextmanager
    def start(self, damage="", building_s=0.5, **environment):
        script = AGENT.replace("BREAK", damage).replace("BUILDING_S", str(building_s))
        command = [sys.executable, "-c", script, str(self.config)]
        variables = os.environ | {"NOTIFY_SOCKET": self.path} | environment
        with self.log.open("w") as log, subprocess.Popen(command, stderr=log, env=variables) as agent:
            try:
                yield agent
            finally:
                agent.send_signal(signal.SIGTERM)

    def listen(self, seconds):
        """The notifications of so many seconds."""
        return self._listen(seconds, lambda _: False)

    def until(self, assignment):
        """All that is heard up to this."""
        found = self._listen(LONG_S, lambda heard: heard == assignment)
        assert found, f"{assignment} was not heard: {self.heard}\n{self.log.read_text()}"
        assert found[-1][1] == assignment, f"{found}\n{self.log.read_text()}"
        return found

    def _listen(self, seconds, enough):
        found, deadline = [], time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                data, ancillary, *_ = self.socket.recvmsg(4096, 1024)
            except TimeoutError:
                break
            pid = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
            lines = data.decode().splitlines()
            found += [(pid, line) for line in lines]
            self.heard += lines
            if any(map(enough, lines)):
                return [(pid, line) for pid, line in found if not line.startswith("STATUS=")]
        return found

    def url(self):
        """The URL of the agent, from its log, as the port is any free one."""
        return [line for line in self.log.read_text().splitlines() if "serving on" in line][-1].rpartition(" ")[2]

    def status(self):
        return Agent(self.url(), timeout=LONG_S).status()


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path)
    yield manager
    manager.socket.close()


def test_ready_comes_once_and_from_the_worker_that_serves(manager):
    """Not from gunicorn, whose master is up before the agent is built."""
    with manager.start() as agent:
        ((speaker, _),) = manager.until("READY=1")

        assert manager.status()["agent"]["pid"] == speaker != agent.pid


def test_after_stopping_is_notified_nothing_says_ready(manager):
    with manager.start(WATCHDOG_USEC="600000") as agent:
        manager.until("READY=1")
        agent.send_signal(signal.SIGTERM)
        manager.until("STOPPING=1")
        agent.wait(LONG_S)

        assert agent.returncode == 0
        assert "READY=1" not in [line for _, line in manager.listen(0.5)]


def test_a_worker_that_dies_is_reported_when_the_next_one_serves(manager):
    with manager.start():
        ((dead, _),) = manager.until("READY=1")
        os.kill(dead, signal.SIGKILL)
        ((following, _),) = manager.until("READY=1")

        assert following != dead


def test_a_reload_reads_the_settings_and_serves_on_the_same_socket(manager):
    """The run that is on ends, and its evidence is not lost."""
    with manager.start() as agent:
        manager.until("READY=1")
        url = manager.url()
        Agent(url, timeout=LONG_S).start(LABELS)
        manager.config.write_text('machine = "after"\nport = 0\n')
        agent.send_signal(signal.SIGHUP)
        heard = [line for _, line in manager.until("READY=1")]

        assert heard == ["RELOADING=1", "READY=1"]
        assert manager.url() == url
        assert manager.status()["machine"] == "after"
        assert "ended with the shutdown: {" in manager.log.read_text()


def test_settings_that_are_wrong_change_nothing(manager):
    manager.config.write_text('machine = "before"')
    with manager.start() as agent:
        manager.until("READY=1")
        manager.config.write_text("sample_interval = 0")
        agent.send_signal(signal.SIGHUP)
        manager.until("READY=1")

        assert manager.status()["machine"] == "before"
        assert "the settings stay as they were" in manager.log.read_text()


def test_a_reload_takes_another_token_and_none_away(manager, tmp_path):
    """After a reload only the new token is accepted; a token cannot be removed, as the agent would be open to all."""
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("before-0123456789")
    manager.config.write_text(f'token_file = "{token}"')

    def answer(given):
        bearer = {"Authorization": f"Bearer {given}"}
        return requests.get(f"{manager.url()}/status", headers=bearer, timeout=LONG_S).status_code

    with manager.start() as agent:
        manager.until("READY=1")
        assert answer("before-0123456789") == 200
        token.write_text("after-0123456789")
        agent.send_signal(signal.SIGHUP)
        manager.until("READY=1")
        assert (answer("before-0123456789"), answer("after-0123456789")) == (401, 200)
        manager.config.write_text("")
        agent.send_signal(signal.SIGHUP)
        manager.until("READY=1")

        assert (answer(""), answer("after-0123456789")) == (401, 200)
        assert "to take away the token needs a restart" in manager.log.read_text()


def test_heartbeats_are_sent_again_and_again(manager):
    with manager.start(WATCHDOG_USEC="600000", WATCHDOG_PID="1"):
        worker = manager.until("READY=1")[-1][0]

        beats = manager.listen(2)

        assert len(beats) >= 4  # of twenty; a machine that is busy with other things loses some
        assert set(beats) == {(worker, "WATCHDOG=1")}


def test_a_worker_that_takes_long_to_build_the_agent_lives(manager):
    """Else the manager would kill it after a reload."""
    with manager.start(building_s=3, WATCHDOG_USEC="600000"):
        heard = [line for _, line in manager.until("READY=1")]

        assert heard.count("WATCHDOG=1") >= 4


@pytest.mark.parametrize("damage", [HANGS, HOLDS], ids=["loop", "lock"])
def test_what_hangs_does_not_live(manager, damage):
    """The worker's loop, or a thread with the lock that every call needs; until it goes on."""
    hang = Path(f"{manager.config}.hang")
    with manager.start(damage, WATCHDOG_USEC="600000"):
        manager.until("WATCHDOG=1")
        hang.touch()
        manager.listen(6)  # LOOP_S is 2
        silence = manager.listen(1)
        hang.unlink()
        manager.until("WATCHDOG=1")

        assert silence == []


def test_a_beat_may_get_lost(manager, monkeypatch):
    """It comes more than twice as often as the manager requires."""
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        raise InterruptedError

    monkeypatch.setattr(systemd_notify, "time", SimpleNamespace(sleep=sleep))
    with pytest.raises(InterruptedError):
        SystemdNotify({"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "600000"})._watch(lambda: True)

    assert manager.socket.recv(64) == b"WATCHDOG=1"
    assert 0 < slept[0] < 0.6 / 2


def test_without_a_manager_nobody_is_notified():
    """A socket that does not exist is no error; the variables are removed from the environment."""
    environment = {"NOTIFY_SOCKET": "/nonexistent/notify", "WATCHDOG_USEC": "", "HOME": "/"}

    SystemdNotify(environment).notify("READY=1")

    assert environment == {"HOME": "/"}
    assert not SystemdNotify({}).listens
