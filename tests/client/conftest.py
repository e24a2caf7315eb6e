"""A server that answers with given bytes: what a broken agent, or no agent at all, might send."""

import socket
import threading

import pytest

from chainbench_agent.client import Agent


class Held(bytes):
    """An answer after which the connection stays open until the end of the test."""


class Scripted:
    """Answers each connection with the next of `answers`, and closes it."""

    def __init__(self, answers):
        self.calls = []
        """The first line of each request."""
        self._answers = answers
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        for answer in self._answers:
            client, _ = self._listener.accept()
            with client, client.makefile("rb") as lines:
                if self._over.is_set():
                    return
                self.calls.append(lines.readline().decode().rpartition(" ")[0])
                length = 0
                while line := lines.readline().strip():
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                lines.read(length)
                client.sendall(answer)
                if isinstance(answer, Held):
                    self._over.wait()

    def close(self):
        self._over.set()
        if self._thread.is_alive():
            socket.create_connection(self._listener.getsockname()).close()
        self._thread.join()
        self._listener.close()


@pytest.fixture
def held():
    """`held(answer)`: one after which the connection stays open."""
    return Held


@pytest.fixture
def scripted():
    """`scripted(*answers)` → the server, and a client of it; `timeout`: the client's."""
    servers = []

    def serve(*answers, timeout=30):
        servers.append(Scripted(answers))
        return servers[-1], Agent(servers[-1].url, timeout=timeout)

    yield serve
    for server in servers:
        server.close()


@pytest.fixture
def answer():
    """`answer(body)` → the bytes of an HTTP answer; `length`: what its head says of it."""

    def written(body, status="200 OK", media_type="application/json", length=None):
        head = f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {length or len(body)}\r\n"
        return f"{head}Connection: close\r\n\r\n{body}".encode()

    return written
