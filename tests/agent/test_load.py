"""Slow clients, many clients, a worker that is killed: what the agent answers, and what it stores."""

import os
import re
import signal
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from daemon import LABELS

from chainbench_agent.server.slow_client_guard import MOST_READ, READ_S
from chainbench_agent.server.worker import ACTING_THREADS, STATUS_THREADS

PROMPTLY_S = 3
MOCK = "from chainbench_agent.collector import open_collector\n    return open_collector(settings)"
HEAD = b"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture
def connect(agent):
    """`connect(data)`: a client that has said so much, and leaves with the test."""
    with ExitStack() as clients:

        def connect(data=b""):
            client = clients.enter_context(socket.create_connection(agent.address, timeout=READ_S * 6))
            client.sendall(data)
            return client

        yield connect


def descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid):
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def memory_kib(pid):
    """Memory of its own and its share of the master's; files are left out, as other programs use them, too."""
    return int(re.search(r"^Pss_Anon:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)[1])


BEGINNINGS = {
    "silent": b"",
    "no end of the head": HEAD,
    "no body": HEAD + b"Content-Length: 9\r\n\r\n",
    "half a body": HEAD + b"Content-Length: 9\r\n\r\n{",
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\n{",
    "waits to be told": HEAD + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n",
}


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
def test_slow_clients_do_not_hold_up_a_stop(agent, connect, beginning):
    """101 of each kind, more than there are threads: a run is started and stopped at once."""
    slow = [connect(beginning) for _ in range(101)]
    began = time.monotonic()
    agent.client.start(**LABELS)
    evidence = agent.client.stop()

    assert time.monotonic() - began < PROMPTLY_S
    assert evidence["run"]["ended_by"] == "stop"
    assert len(slow) == 101


def test_dribbling_clients_do_not_hold_up_a_stop(agent, connect):
    """A byte now and then is no request either; each gets its answer when its time is over."""
    slow = [connect(HEAD + b"X: ") for _ in range(23)]
    done = threading.Event()

    def dribble():
        while not done.wait(0.2):
            for client in slow:
                try:
                    client.send(b"x")
                except OSError:
                    return

    dribbling = threading.Thread(target=dribble)
    dribbling.start()
    try:
        for _ in range(7):
            agent.client.start(**LABELS)
            agent.client.stop()
        answers = [client.makefile("rb").readline() for client in slow]
    finally:
        done.set()
        dribbling.join()

    assert answers == [b"HTTP/1.1 408 Request Timeout\r\n"] * 23


def test_a_client_that_takes_its_time_is_served(connect):
    """In pieces, within the time it has."""
    client = connect()
    for piece in (b"GET /sta", b"tus HTTP/1.1\r\nHost: loc", b"alhost\r\n", b"\r\n"):
        client.sendall(piece)
        time.sleep(0.1)

    assert client.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"


def test_a_client_that_waits_for_100_continue(connect):
    body = b'{"impl":"i","variant":"v","commit":"c","dataset":"d","baseline_ms":2,"optimized_ms":1,"gain_pct":50}'
    client = connect(
        HEAD.replace(b"start", b"report") + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    file = client.makefile("rb")
    told = file.readline(), file.readline()
    client.sendall(body)

    assert told == (b"HTTP/1.1 100 Continue\r\n", b"\r\n")
    assert [line for line in file.read().splitlines() if line.startswith(b"HTTP")][-1] == b"HTTP/1.1 200 OK"


def test_more_slow_clients_than_are_waited_for(agent, connect):
    """The client that has been slow for longest gets 503 and makes room."""
    first = connect(HEAD)
    others = [connect(HEAD) for _ in range(MOST_READ)]

    assert first.makefile("rb").readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
    agent.client.status()
    assert descriptors(agent.worker()) < len(others) + 50


def test_clients_that_do_not_take_their_answers(agent, connect):
    """Many clients send a request and never read; meanwhile a run is started and stopped."""
    ask = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    asking = [connect(ask) for _ in range(101)]
    began = time.monotonic()

    agent.client.start(**LABELS)
    agent.client.stop()
    assert time.monotonic() - began < PROMPTLY_S
    assert len(asking) == 101


STUCK = """
    import time
    from chainbench_agent.export.prometheus import Exporter
    Exporter.render_parts = lambda *_: time.sleep(3600)
    return FakeCollector()
"""


def test_what_only_looks_is_in_no_way_of_what_acts(daemon):
    """23 scrapes that come to no end have every thread for those, and more wait: a run begins, is seen and ends."""
    agent = daemon(STUCK)
    with ExitStack() as clients:
        for _ in range(23):
            client = clients.enter_context(socket.create_connection(agent.address))
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answers = [agent.post("/start", **LABELS), agent.get("/status"), agent.post("/stop")]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert answers[1].json()["running"]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, 431),
        (HEAD + b"Content-Length: 99999999\r\n\r\n", 413),
        (HEAD + b"Content-Length: 70000\r\n\r\n" + b"x" * 70_000, 413),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_answered(connect, said, status):
    """Also a client that goes on sending sees the answer."""
    answer = connect(said).makefile("rb").readline()

    assert answer.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.timeout(900)
def test_10000_runs_leave_nothing_behind(daemon, tmp_path):
    """Made-up data, from the real mock backend: descriptors, threads and memory are what they were.

    Each is flushed to the store, which keeps the last 101 and does not grow either.
    """
    state = {"store": "sqlite", "state_dir": tmp_path / "state", "keep_runs": 101}
    agent = daemon(MOCK, backend="mock", **state)
    assert agent.url

    def cycles(count):
        for _ in range(count):
            assert ask(agent, b"/start", STARTS) == 200
            assert ask(agent, b"/stop") == 200

    cycles(500)
    worker = agent.worker()
    before, stored = (descriptors(worker), memory_kib(worker)), agent.client.status()["store"]
    cycles(10_000)
    agent.until(lambda: descriptors(worker) <= before[0])

    assert agent.worker() == worker
    assert threads(worker) <= 1 + ACTING_THREADS + STATUS_THREADS + 8 + 2  # loop, answers; the log, who watches a run
    assert memory_kib(worker) - before[1] < 4096  # 0.4 of each run; once, what was the master's as well becomes its own
    kept = agent.client.status()["store"]
    assert (kept["runs"], kept["state"]) == (101, "up")
    assert kept["bytes"] - stored["bytes"] < 1 << 20


STARTS = b'{"scenario":"s","impl":"i","variant":"v","commit":"c","dataset":"d","probes":["exec"]}'


def ask(agent, path, body=b""):
    """A POST, and its status: 10,000 of them take requests a minute."""
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(agent.address, timeout=60) as client:
        client.sendall(head % (path, len(body)) + body)
        with client.makefile("rb") as answer:
            return int(answer.read().split(maxsplit=2)[1])


def test_a_worker_that_is_killed_in_a_run(agent):
    """The master starts another.  The answer to /stop says what happened and what is stored, and the next run works."""
    run_id = agent.client.start(**LABELS)["run_id"]
    dead = agent.worker()
    os.kill(dead, signal.SIGKILL)
    agent.until(lambda: agent.worker() not in {None, dead})
    refused = agent.post("/stop")

    assert refused.status_code == 409
    lost = f"run {run_id} (scenario=baseline impl=python variant=numpy commit=abc123 dataset=sha256hash) was lost"
    why = f"{lost}: the process that collected it died; GET /runs has what was stored of it"
    assert refused.json()["detail"] == f"no run is active: {why}"
    assert agent.client.run(run_id)["result"] == "interrupted"
    assert agent.client.status()["failure"].startswith(lost)
    assert f"ERROR   {lost}" in agent.log
    agent.client.start(**LABELS)
    assert "failure" not in agent.client.status()
    agent.client.stop()
