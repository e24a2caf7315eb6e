"""The daemon's processes and signals, with a collector that follows a script."""

import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from daemon import LABELS, LONG_S

from chainbench_agent.errors import InputError
from chainbench_agent.server.listener import listen

PROMPTLY_S = 3


def to_master(daemon, signum):
    daemon.process.send_signal(signum)


def to_all(daemon, signum):
    """Sends a signal to the whole process group, as a terminal and systemd do."""
    os.killpg(daemon.process.pid, signum)


@pytest.mark.parametrize("send", [to_master, to_all])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_a_signal_ends_the_run_and_the_daemon(daemon, signum, send):
    """The evidence of the run in progress is in the log; the end is prompt and is no failure."""
    agent = daemon()
    run_id = agent.client.start(**LABELS)["run_id"]
    began = time.monotonic()
    send(agent, signum)

    assert agent.process.wait(LONG_S) == 0
    assert time.monotonic() - began < PROMPTLY_S
    (evidence,) = agent.evidence_in_log()
    assert (evidence["run"]["id"], evidence["run"]["ended_by"]) == (run_id, "shutdown")
    assert evidence["exec"] == {"exec_count": 53}
    assert "Traceback" not in agent.log


@pytest.mark.parametrize("send", [to_master, to_all])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_is_built_stops_it(daemon, signum, send):
    """The build is abandoned, because it takes long; the worker is not killed, and it is no failure."""
    agent = daemon(
        """
    try:
        sys.stderr.write("building\\n")
        __import__("time").sleep(600)
    finally:
        sys.stderr.write("left\\n")"""
    )
    agent.until(lambda: "building" in agent.log)
    send(agent, signum)

    assert agent.process.wait(LONG_S) == 0
    assert agent.log.splitlines()[-1] == "left"


def test_a_client_that_says_nothing_does_not_hold_the_daemon_up(daemon):
    agent = daemon()
    host, port = agent.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as silent, socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /start HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
        agent.client.status()
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
    agent.client.start(**LABELS)

    assert agent.client.stop()["run"]["ended_by"] == "stop"
    assert agent.process.wait(LONG_S) == 0
    assert agent.evidence_in_log() == []


def test_signals_that_would_make_a_second_worker_are_ignored(daemon):
    agent = daemon()
    agent.client.status()
    worker = agent.worker()
    for signum in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2):
        to_master(agent, signum)
    to_master(agent, signal.SIGCHLD)  # handled after those: signals queue

    assert agent.client.status()["agent"]["pid"] == worker == agent.worker()


def test_a_worker_that_dies_is_replaced(daemon):
    """With an agent that knows of no run."""
    agent = daemon()
    agent.client.start(**LABELS)
    dead = agent.worker()
    os.kill(dead, signal.SIGKILL)
    agent.until(lambda: agent.worker() not in {None, dead})

    assert agent.client.status()["status"] == "idle"


def test_an_agent_that_cannot_be_built_ends_with_one_sentence(daemon):
    agent = daemon('raise SetupError("BCC is missing; as root: apt-get install python3-bpfcc")')

    assert agent.process.wait(LONG_S) == 3
    (line,) = agent.log.splitlines()
    assert line.endswith("ERROR   BCC is missing; as root: apt-get install python3-bpfcc")


def test_a_bug_while_building_ends_the_daemon_as_well(daemon):
    """No further worker is started; the log has the traceback once."""
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
    ("host", "says"), [("192.0.2.1", "Cannot assign"), ("no such host", "not known"), ("a..b", "codec")]
)
def test_an_address_that_is_not_ours(host, says):
    with pytest.raises(InputError, match=rf"^host: cannot listen on {host}:9090: .*{says}.*--host"):
        listen(host, 9090, protected=True)


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
    agent.client.start(**LABELS)
    running = agent.client.metrics()
    agent.client.stop()

    for text in (running, agent.client.metrics()):
        assert 'chainbench_exec_count_total{commit="abc123",' in text


def test_metrics_of_both_processes(daemon):
    """Master and worker, each by its own pid: how long ago they began, as the kernel has it."""
    agent = daemon()
    text = agent.client.metrics()
    shown = re.findall(r'^chainbench_agent_process_start_time_seconds\{process="(\w+)"\} (\S+)$', text, re.MULTILINE)

    booted = int(re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)[1])
    assert {role: float(seconds) for role, seconds in shown} == {
        role: pytest.approx(booted + int(Path(f"/proc/{pid}/stat").read_text().split()[21]) / os.sysconf("SC_CLK_TCK"))
        for role, pid in {"master": agent.process.pid, "worker": agent.worker()}.items()
    }


def test_there_is_no_access_log(daemon):
    agent = daemon()
    agent.client.status()
    agent.get("/nowhere")
    to_master(agent, signal.SIGTERM)
    agent.process.wait(LONG_S)

    assert [line.split(maxsplit=3)[3].split(" http")[0] for line in agent.log.splitlines()] == ["serving on"]


def test_debugging_shows_what_gunicorn_does(daemon):
    agent = daemon(log_level="debug")
    agent.client.status()

    assert "Booting worker" in agent.log


def test_runs_sample_as_the_agent_is_set(daemon, monkeypatch):
    """A run has the sample interval of the settings, unless its start has another."""
    monkeypatch.setenv("CHAINBENCH_SAMPLE_INTERVAL", "7")
    agent = daemon()
    intervals = []
    for said in ({}, {"sample_interval": 3}):
        agent.client.start(**LABELS, **said)
        intervals.append(agent.client.stop()["run"]["sample_interval"])

    assert intervals == [7, 3]
