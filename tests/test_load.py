"""Slow clients, many clients, no descriptors, a worker that is killed: what the agent says then, and what it keeps."""

import os
import re
import resource
import signal
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from daemon import LABELS

from chainbench_agent.web.intake import MOST_READ, READ_S
from chainbench_agent.web.worker import ACTING_THREADS

PROMPTLY_S = 3
HEAD = b"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture
def agent(daemon):
    agent = daemon()
    agent.until(lambda: agent.url)
    return agent


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


def first_free(agent):
    """The number that the worker's next descriptor will have, when nothing is under way: as a limit, it is all used."""

    def numbers():
        return {int(path.name) for path in Path(f"/proc/{agent.worker()}/fd").iterdir()}

    def settled():
        before = numbers()
        time.sleep(0.2)
        return before == numbers() and before

    used = agent.until(settled)
    return next(number for number in range(len(used) + 1) if number not in used)


def threads(pid):
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def pss_kib(pid):
    return int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)[1])


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
    assert agent.post("/start", **LABELS).status_code == 200
    evidence = agent.post("/stop").json()

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
            assert agent.post("/start", **LABELS).status_code == 200
            assert agent.post("/stop").status_code == 200
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


def test_a_client_that_waits_to_be_told(connect):
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
    """The one that has been at it for longest is told and makes room."""
    first = connect(HEAD)
    others = [connect(HEAD) for _ in range(MOST_READ)]

    assert first.makefile("rb").readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
    assert agent.get("/status").ok
    assert descriptors(agent.worker()) < len(others) + 50


def test_clients_that_do_not_take_their_answers(agent, connect):
    """They ask, many at once, and never read: a run is started and stopped beside them."""
    ask = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    asking = [connect(ask) for _ in range(101)]
    began = time.monotonic()

    assert agent.post("/start", **LABELS).status_code == 200
    assert agent.post("/stop").status_code == 200
    assert time.monotonic() - began < PROMPTLY_S
    assert len(asking) == 101


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, 431),
        (HEAD + b"Content-Length: 99999999\r\n\r\n", 413),
        (HEAD + b"Content-Length: 70000\r\n\r\n" + b"x" * 70_000, 413),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_told(connect, said, status):
    """Also a client that goes on sending sees the answer."""
    answer = connect(said).makefile("rb").readline()

    assert answer.startswith(b"HTTP/1.1 %d " % status)


def test_out_of_descriptors(agent, connect):
    """Slow clients go first, the slowest of them; a run that is on goes on."""
    worker = agent.worker()
    assert agent.post("/start", **LABELS).status_code == 200
    slow = [connect(HEAD) for _ in range(11)]
    assert agent.get("/status").ok
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (first_free(agent), limits[1]))
    beside = agent.get("/status")
    resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)

    assert beside.ok
    assert slow[0].makefile("rb").readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
    assert agent.log.count("no descriptor for a client: Too many open files") == 1
    assert agent.post("/stop").json()["run"]["ended_by"] == "stop"


def test_out_of_descriptors_without_slow_clients(agent):
    """Who comes is told so, and it is over when it is over."""
    worker = agent.worker()
    assert agent.post("/start", **LABELS).status_code == 200
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (first_free(agent), limits[1]))
    told = agent.get("/status")
    resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)

    assert told.status_code == 503
    assert "descriptors open" in told.json()["detail"]
    assert "LimitNOFILE" in told.json()["remedy"]
    assert "no descriptor for a client: Too many open files" in agent.log
    assert agent.post("/stop").json()["run"]["ended_by"] == "stop"
    assert agent.worker() == worker


def test_a_start_without_descriptors(daemon):
    """What the collector needs and does not get is a 503 with the kernel's words; the next start works."""
    agent = daemon(
        """
    import os
    class Needy(FakeCollector):
        def start(self, target, peer=None, plan=None, *, run_id=""):
            fds = []
            try:
                for _ in range(101):
                    fds.append(os.open("/dev/null", os.O_RDONLY))
                super().start(target, peer)
            finally:
                for fd in fds:
                    os.close(fd)
    return Needy()
"""
    )
    assert agent.get("/status").ok
    worker = agent.worker()
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (descriptors(worker) + 50, limits[1]))
    refused = agent.post("/start", **LABELS)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)

    assert refused.status_code == 503
    assert "Too many open files" in refused.json()["detail"]
    assert agent.post("/start", **LABELS).status_code == 200


def test_10000_runs_leave_nothing_behind(daemon):
    """Made-up data, from the real mock backend: descriptors, threads and memory are what they were."""
    agent = daemon(
        "from chainbench_agent.collector import open_collector\n    return open_collector(settings)", backend="mock"
    )
    assert agent.url

    def cycles(count):
        for _ in range(count):
            assert ask(agent, b"/start", STARTS) == 200
            assert ask(agent, b"/stop") == 200

    cycles(500)
    worker = agent.worker()
    before = descriptors(worker), pss_kib(worker)
    cycles(10_000)
    agent.until(lambda: descriptors(worker) <= before[0])

    assert agent.worker() == worker
    assert threads(worker) <= 1 + ACTING_THREADS + 8 + 1  # the loop, those that answer, and who watches a run
    assert pss_kib(worker) - before[1] < 2048


STARTS = b'{"scenario":"s","impl":"i","variant":"v","commit":"c","dataset":"d","probes":["exec"]}'


def ask(agent, path, body=b""):
    """A POST, and its status: 10,000 of them take requests a minute."""
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(agent.address, timeout=60) as client:
        client.sendall(head % (path, len(body)) + body)
        with client.makefile("rb") as answer:
            return int(answer.read().split(maxsplit=2)[1])


def test_a_worker_that_is_killed_in_a_run(agent):
    """The master starts another; the runner that comes to stop is told what happened, and can go on."""
    run_id = agent.post("/start", **LABELS).json()["run_id"]
    dead = agent.worker()
    os.kill(dead, signal.SIGKILL)
    agent.until(lambda: agent.worker() not in {None, dead})
    refused = agent.post("/stop")

    assert refused.status_code == 409
    lost = f"run {run_id} (scenario=baseline impl=python variant=numpy commit=abc123 dataset=sha256hash) was lost"
    assert refused.json()["detail"] == f"no run is on: {lost}: the process that collected it died"
    assert agent.get("/status").json()["failure"].startswith(lost)
    assert f"ERROR   {lost}" in agent.log
    assert agent.post("/start", **LABELS).status_code == 200
    assert "failure" not in agent.get("/status").json()
    assert agent.post("/stop").status_code == 200
