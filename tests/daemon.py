"""The agent in a process of its own: `Served` as an operator starts it, `Daemon` with a collector of the test."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path

import pytest
import requests

from chainbench_agent.client import Agent, UnreachableError
from chainbench_agent.commands.own_agent import free_port

LABELS = {"scenario": "baseline", "impl": "python", "variant": "numpy", "commit": "abc123", "dataset": "sha256hash"}
LONG_S = 60
AGENT = """
import sys
from chainbench_agent.collector.fake import FakeCollector
from chainbench_agent.errors import AgentError, SetupError
from chainbench_agent.server.gunicorn_server import serve
from chainbench_agent.settings import load_settings

def open_collector(settings):
    OPEN

try:
    serve(load_settings(port=sys.argv[1], log_level=sys.argv[2]), open_collector)
except AgentError as error:
    sys.exit(str(error))
"""


class AgentProcess:
    """An agent in a process of its own, and a client of it."""

    process = None

    @cached_property
    def client(self):
        return Agent(self.url, timeout=LONG_S)

    def worker(self):
        """The process that serves; None while there is none."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children) if children else None

    def end(self):
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LONG_S)


class Served(AgentProcess):
    """`chainbench-agent serve` on one port, however often it is started.

    `options`: of the command line.  `prefix`: the command that executes it.  `settings`: for the environment.
    """

    def __init__(self, directory, *options, prefix=(), **settings):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = directory / "agent.log"
        self._command = [*prefix, sys.executable, "-m", "chainbench_agent", "serve", "--port", str(port), *options]
        self._environment = environment(settings)

    @property
    def log(self):
        return self._log.read_text()

    def start(self):
        """Return itself when it answers."""
        with self._log.open("a") as log:
            self.process = subprocess.Popen(self._command, stderr=log, env=self._environment, cwd="/")
        self.wait_until_ready()
        return self

    def wait_until_ready(self):
        """It compiles and loads before its first answer."""
        waiting = Agent(self.url, timeout=300)
        for _ in range(600):
            try:
                waiting.status()
            except UnreachableError:
                assert self.process.poll() is None, self.log
                time.sleep(0.1)
            else:
                return
        pytest.fail(f"the agent does not answer: {self.log}")

    def processes(self):
        """The process that was started, and the one that serves."""
        return [self.process.pid, self.worker()]


class Daemon(AgentProcess):
    """An agent whose collector is what the lines of `opening` return."""

    def __init__(self, tmp_path, opening="return FakeCollector()", port=0, log_level="info", stderr=None, **settings):
        """`settings`: the others, as the environment has them.  `stderr`: a descriptor in place of the log."""
        script = AGENT.replace("OPEN", opening)
        self._log = tmp_path / "log"
        with self._log.open("w") as log:
            # gunicorn leaves a file to the interpreter when a worker does not come up
            warnings = ["-W", "error", "-W", "ignore::ResourceWarning"]
            command = [sys.executable, *warnings, "-c", script, str(port), log_level]
            self.process = subprocess.Popen(
                command, stderr=log if stderr is None else stderr, start_new_session=True, env=environment(settings)
            )

    @property
    def log(self):
        return self._log.read_text()

    def until(self, condition):
        """Return what `condition` returns, as soon as that is true."""
        deadline = time.monotonic() + LONG_S
        while time.monotonic() < deadline:
            if result := condition():
                return result
            time.sleep(0.02)
        return pytest.fail(f"never happened; the log:\n{self.log}")

    @property
    def address(self):
        host, port = self.url.partition("://")[2].rsplit(":", 1)
        return host, int(port)

    @cached_property
    def url(self):
        """Where it serves, when it does.  The log says so: with port 0 only the agent knows."""
        line = self.until(lambda: [line for line in self.log.splitlines() if "serving on" in line])[0]
        return line.rpartition(" ")[2]

    def post(self, path, **body):
        """The HTTP answer, for tests of HTTP itself; so is that of `get`."""
        return requests.post(self.url + path, json=body or None, timeout=LONG_S)

    def get(self, path):
        return requests.get(self.url + path, timeout=LONG_S)

    def evidence_in_log(self):
        lines = [line for line in self.log.splitlines() if "ended with the shutdown: {" in line]
        return [json.loads(line[line.index("{") :]) for line in lines]


def environment(settings):
    return os.environ | {f"CHAINBENCH_{name.upper()}": str(value) for name, value in settings.items()}
