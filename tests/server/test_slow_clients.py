"""Clients that read slowly, or not at all: they hold no thread, and nothing of an answer is missing without a word."""

import contextlib
import gzip
import json
import re
import socket
import ssl
import time

import pytest
from daemon import LONG_S

ROOM = 65536
BODY_BYTES = 8 << 20
OPENING = """
    from chainbench_agent.export.prometheus import Exporter
    from chainbench_agent.server import response_sender
    response_sender.SEND_S = SEND_SECONDS
    response_sender.LONGEST_S = ALL_SECONDS
    response_sender.MOST_BYTES = ROOM_BYTES
    real, shared = Exporter.render_parts, [b"%08d " % n * 1024 for n in range(TOTAL // 9216)]
    Exporter.render_parts = lambda self, view, accept: (
        real(self, view, accept) if accept == "real" else (shared if KEEPS else [b"".join(shared)], "text/plain")
    )
    return FakeCollector()
"""


@pytest.fixture
def large(daemon):
    """`large(...)` → an agent whose /metrics is 8 MiB, unless `Accept: real` asks for it."""

    def start(*, send_s=10, longest_s=600, most_bytes=64 << 20, shares=True, **settings):
        values = {"SEND_SECONDS": send_s, "ALL_SECONDS": longest_s, "ROOM_BYTES": most_bytes, "KEEPS": shares}
        opening = OPENING.replace("TOTAL", str(BODY_BYTES))
        for name, value in values.items():
            opening = opening.replace(name, str(value))
        agent = daemon(opening, **settings)
        assert agent.url
        return agent

    return start


@pytest.fixture
def ask():
    """`ask(agent)` → a client with little room of its own, that has asked for /metrics and not read yet."""
    with contextlib.ExitStack() as clients:

        def connect(agent, headers="", path=""):
            sock = clients.enter_context(socket.socket(socket.AF_UNIX if path else socket.AF_INET))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
            sock.settimeout(LONG_S)
            sock.connect(path or agent.address)
            sock.sendall(f"GET /metrics HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
            return sock

        yield connect


def read_all(sock):
    """(announced, what came)."""
    with sock.makefile("rb") as file:
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := file.read1(1 << 16):
                data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return int(re.search(rb"content-length: (\d+)", head.lower())[1]), body


def cut(agent):
    """Cause → how many answers were not sent whole."""
    text = agent.get_real()
    found = re.findall(r'^chainbench_agent_responses_cut_total\{cause="(\w+)"\} (\S+)', text, re.MULTILINE)
    return {cause: float(count) for cause, count in found if float(count)}


@pytest.fixture(autouse=True)
def get_real(monkeypatch):
    import requests
    from daemon import Daemon

    def get(agent):
        return requests.get(f"{agent.url}/metrics", headers={"Accept": "real"}, timeout=LONG_S).text

    monkeypatch.setattr(Daemon, "get_real", get, raising=False)


def test_slow_clients_hold_no_thread(large, ask):
    """23 that have not read anything yet; /status and another whole /metrics are answered; then they get all of it."""
    agent = large()
    slow = [ask(agent) for _ in range(23)]
    status = agent.get("/status")
    quick = agent.get("/metrics")

    assert status.ok
    assert len(quick.content) > BODY_BYTES - 9216
    for client in slow:
        announced, body = read_all(client)
        assert announced == len(body)
        assert body == quick.content
    assert cut(agent) == {}


def test_a_client_that_stops_reading(large, ask):
    """It sees fewer bytes than were announced; the log and /metrics say so."""
    agent = large(send_s=0.5)
    stuck = ask(agent)
    agent.until(lambda: "its client has taken nothing" in agent.log)
    announced, body = read_all(stuck)

    assert 0 < len(body) < announced
    (line,) = [line for line in agent.log.splitlines() if "GET /metrics" in line]
    assert re.search(r"WARNING GET /metrics: \d+ of \d+ bytes were sent: its client has taken nothing", line)
    assert cut(agent) == {"too_slow": 1}


def test_a_client_that_takes_for_ever(large, ask):
    """A byte now and then is progress, and comes to an end all the same."""
    agent = large(longest_s=1)
    dribbling = ask(agent)
    with contextlib.suppress(ConnectionResetError):
        while "it was not taken within 1 s" not in agent.log:
            assert dribbling.recv(4096)
            time.sleep(0.05)

    assert cut(agent) == {"too_slow": 1}


def test_a_client_that_goes(large, ask):
    agent = large()
    ask(agent).close()

    agent.until(lambda: "its client has gone" in agent.log)
    assert cut(agent) == {"client_left": 1}


@pytest.mark.parametrize(("shares", "cuts"), [(True, {}), (False, {"no_room": 3})])
def test_answers_share_what_is_the_same(large, ask, shares, cuts):
    """Five of 8 MiB are within 20 MiB where they are the same bytes; else the oldest make room for the others."""
    agent = large(most_bytes=20 << 20, shares=shares)
    for number in range(1, 6):
        ask(agent)
        agent.until(lambda number=number: sending(agent) + sum(cut(agent).values()) == number)

    assert cut(agent) == cuts


def sending(agent):
    """Connections to clients that have not closed theirs; the one that asks for this is not among them."""
    import subprocess

    from packages import require

    port = agent.address[1]
    command = [str(require("ss")), "-Htn", "state", "established", f"sport = :{port}"]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return len([row for row in rows if int(row.split()[1]) > 0])


def test_over_tls(large, certificate):
    """Pieces that the client has not taken are sent again unchanged, as TLS requires."""
    cert, key = certificate
    agent = large(tls_cert=cert, tls_key=key)
    context = ssl.create_default_context(cafile=cert)
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        plain.settimeout(LONG_S)
        plain.connect(agent.address)
        client = context.wrap_socket(plain, server_hostname="localhost")
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.3)  # so that it is not taken at once
        data = b""
        announced = None
        while announced is None or len(data) < announced:
            data += client.recv(1 << 16)
            head, end, _ = data.partition(b"\r\n\r\n")
            if end and announced is None:
                announced = len(head) + 4 + int(re.search(rb"content-length: (\d+)", head.lower())[1])

        client.close()

    body = data.partition(b"\r\n\r\n")[2]
    assert body == b"".join(b"%08d " % n * 1024 for n in range(BODY_BYTES // 9216))


def test_over_a_unix_socket(large, ask, tmp_path):
    agent = large(host=f"unix:{tmp_path}/socket")
    slow = [ask(agent, path=f"{tmp_path}/socket") for _ in range(11)]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/socket")
        client.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status = json.loads(client.makefile("rb").read().partition(b"\r\n\r\n")[2])

    assert status["status"] == "idle"
    for client in slow:
        announced, body = read_all(client)
        assert announced == len(body)


def test_compressed(large, ask):
    """As a scraper asks for it: the same text in a fraction of the bytes."""
    agent = large()
    announced, body = read_all(ask(agent, "Accept-Encoding: gzip\r\n"))

    assert announced == len(body) < BODY_BYTES / 10
    assert gzip.decompress(body) == b"".join(b"%08d " % n * 1024 for n in range(BODY_BYTES // 9216))


def test_an_answer_under_way_when_the_agent_ends(large, ask):
    """It has a moment; what does not come through then is said."""
    agent = large()
    ask(agent)
    agent.client.status()
    assert agent.end() == 0

    assert re.search(r"WARNING GET /metrics: \d+ of \d+ bytes were sent: the agent ends", agent.log)
