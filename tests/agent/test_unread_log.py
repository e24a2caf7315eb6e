"""An agent whose stderr nobody reads answers every call, and ends at SIGTERM."""

import fcntl
import os
import re
import time

import pytest
from daemon import LABELS, LONG_S

from chainbench_agent.client import UnreachableError
from chainbench_agent.commands.own_agent import free_port
from chainbench_agent.logs.writer import NOBODY_READS, REMEDY

RUNS = 211
LOUD = """
    import logging
    class Loud(FakeCollector):
        'Logs 16 KiB in each run, so that fewer runs fill the pipe and the queue.'
        def start(self, request, run_id=""):
            logging.getLogger("loud").warning("x" * 16384)
            super().start(request, run_id)
    return Loud()
"""


@pytest.fixture
def unread(daemon):
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 65536)
    agent = daemon(LOUD, port=(port := free_port()), stderr=writing)
    os.close(writing)
    agent.__dict__["url"] = f"http://127.0.0.1:{port}"  # the log does not say it

    def answers():
        try:
            return agent.client.status()
        except UnreachableError:
            return None

    agent.until(answers)
    yield agent, reading
    os.close(reading)


def test_nobody_reads_stderr(unread):
    """211 runs with 3.4 MiB of log; /status and /metrics say how much of it is missing, and SIGTERM ends it all."""
    agent, reading = unread
    for _ in range(RUNS):
        agent.client.start(**LABELS)
        assert agent.client.stop()["exec"] == {"exec_count": 53}
    log = agent.client.status()["agent"]["log"]
    metrics = agent.client.metrics()
    began = time.monotonic()

    assert agent.end() == 0
    assert time.monotonic() - began < LONG_S / 4
    assert 3 * RUNS - 300 < log["records_dropped"] < 3 * RUNS
    assert (log["reason"], log["remedy"]) == (NOBODY_READS, REMEDY)
    dropped = re.search(r"^chainbench_agent_log_records_dropped_total (\S+)", metrics, re.MULTILINE)
    assert float(dropped[1]) == log["records_dropped"]
    assert b"serving on" in os.read(reading, 65536)


def test_an_agent_whose_stderr_is_read_drops_nothing(agent):
    agent.client.start(**LABELS)
    agent.client.stop()

    assert agent.client.status()["agent"]["log"] == {"records_dropped": 0}
