"""A daemon in a process of its own, for tests of what only shows there."""

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

from chainbench_agent.client import Agent

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


class Daemon:
    """A daemon whose collector is what the lines of `opening` return."""

    def __init__(self, tmp_path, opening="return FakeCollector()", port=0, log_level="info", stderr=None, **settings):
        """`settings`: the others, as the environment has them.  `stderr`: a descriptor in place of the log."""
        script = AGENT.replace("OPEN", opening)
        self._log = tmp_path / "log"
        with self._log.open("w") as log:
            # gunicorn leaves a file to the interpreter when a worker does not come up
            warnings = ["-W", "error", "-W", "ignore::ResourceWarning"]
            command = [sys.executable, *warnings, "-c", script, str(port), log_level]
            environment = os.environ | {f"CHAINBENCH_{name.upper()}": str(value) for name, value in settings.items()}
            self.process = subprocess.Popen(
                command, stderr=log if stderr is None else stderr, start_new_session=True, env=environment
            )

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
    def address(self):
        host, port = self.url.partition("://")[2].rsplit(":", 1)
        return host, int(port)

    @cached_property
    def url(self):
        """Where it serves, when it does.  The log says so: with port 0 only the agent knows."""
        line = self.until(lambda: [line for line in self.log.splitlines() if "serving on" in line])[0]
        return line.rpartition(" ")[2]

    def client(self, **options):
        """A client of it; `options`: those of the client."""
        return Agent(self.url, timeout=LONG_S, **options)

    def post(self, path, **body):
        return requests.post(self.url + path, json=body or None, timeout=LONG_S)

    def get(self, path):
        return requests.get(self.url + path, timeout=LONG_S)

    def end(self):
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LONG_S)

    def worker(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children) if children else None

    def evidence_in_log(self):
        lines = [line for line in self.log.splitlines() if "ended with the shutdown: {" in line]
        return [json.loads(line[line.index("{") :]) for line in lines]
