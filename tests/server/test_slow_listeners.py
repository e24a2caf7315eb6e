"""Clients of GET /events that never read, at a real daemon with real sockets: they hold up nothing but themselves."""

import json
import re
import socket

import pytest
from daemon import LABELS, LONG_S, Daemon

from chainbench_agent.runs.event_listeners import MOST_LISTENERS, MOST_WAITING
from chainbench_agent.web.problems import LISTENERS_REMEDY

TOLD = 10007
"""Each of 1 kB: more than all buffers between agent and client hold, and MOST_WAITING of them."""

OPENING = """
    import time
    from chainbench_agent.loading.event_records import EventRecord
    from chainbench_agent.server import worker
    worker.SEND_S = SEND_SECONDS
    class Burst:
        'Tells while a run is on, as soon as all places are taken.'
        joined = told = 0
        def listen(self, *, on):
            self.joined += on
        def poll(self, timeout_ms):
            time.sleep(0.001)
            some = min(101, TOLD - self.told) if collector.collecting and self.joined >= PLACES else 0
            self.told += some
            return [EventRecord(0, 'exec.exec', pid, 'x' * 1000, {}, 'run-1') for pid in range(some)]
        def dropped(self):
            return {'held_back': 0, 'without_room': 0}
    collector = FakeCollector(ring=Burst())
    return collector
"""

QUIET = """
    import time
    class Quiet:
        def listen(self, *, on): ...
        def poll(self, timeout_ms):
            time.sleep(timeout_ms / 1000)
            return []
        def dropped(self):
            return {'held_back': 0, 'without_room': 0}
    return FakeCollector(ring=Quiet())
"""


class Client:
    """Has the smallest receive buffer, and reads nothing before `read` is called."""

    def __init__(self, address):
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # before it connects, so that no more is sent
        self.sock.settimeout(LONG_S)
        self.sock.connect(address)
        self.sock.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def events(self):
        """Yields the events that are received until the connection ends."""
        lines = self.sock.makefile("rb")
        return (json.loads(line.removeprefix(b"data: ")) for line in lines if line.startswith(b"data: "))

    def all_of_them(self):
        """(events that were heard, events that were announced as dropped, by which cause), of all that were emitted."""
        heard, dropped, causes = 0, 0, set()
        for event in self.events():
            if event["name"] == "dropped":
                dropped += event["count"]
                causes.add(event["cause"])
            else:
                heard += 1
            if heard + dropped == TOLD:
                break
        return heard, dropped, causes


@pytest.fixture
def crowd(daemon):
    """`crowd(seconds)` → an agent that gives up clients after so long, and all the listeners it takes."""
    clients = []

    def gather(seconds):
        opening = OPENING.replace("SEND_SECONDS", str(seconds)).replace("PLACES", str(MOST_LISTENERS))
        agent = daemon(opening.replace("TOLD", str(TOLD)))
        clients.extend(Client(agent.address) for _ in range(MOST_LISTENERS))
        return agent, clients

    yield gather
    for client in clients:
        client.sock.close()


def refused(agent: Daemon):
    """The answer to one more listener; None if it may listen."""
    with Client(agent.address).sock as sock:
        head = re.match(rb"HTTP/1.1 (\d+)", answer := sock.recv(4096))
        return None if head[1] == b"200" else json.loads(answer.partition(b"\r\n\r\n")[2] or sock.recv(4096))


def test_who_never_reads_holds_up_nobody(crowd):
    """Three never read: /stop answers, the fourth gets every event, and the others the count of missed ones."""
    agent, (*slow, fast) = crowd(LONG_S)
    agent.client.start(**LABELS)
    heard, dropped, _ = fast.all_of_them()
    evidence = agent.client.stop()

    assert heard + dropped == TOLD
    assert evidence["exec"] == {"exec_count": 53}
    for client in slow:
        heard, dropped, causes = client.all_of_them()
        assert heard + dropped == TOLD
        assert heard >= MOST_WAITING
        assert dropped > 0
        assert causes == {"slow_listener"}


def test_one_listener_too_many(crowd):
    """Its remedy is one that helps."""
    agent, clients = crowd(LONG_S)
    agent.client.start(**LABELS)
    next(clients[0].events())  # so all have joined
    answer = refused(agent)

    assert (answer["status"], answer["remedy"]) == (503, LISTENERS_REMEDY)
    assert answer["detail"] == f"{MOST_LISTENERS} clients are listening already, and more are not possible"
    agent.client.stop()


def test_who_never_reads_loses_its_place(crowd):
    """Else four clients that hang would be in everybody's way for as long as they hang."""
    agent, clients = crowd(0.1)
    agent.client.start(**LABELS)
    next(clients[0].events())  # so all have joined
    agent.until(lambda: refused(agent) is None)

    agent.client.stop()


def test_who_has_gone_loses_its_place_though_nothing_happens(daemon):
    """Something is sent now and then, and that it does not arrive is noticed."""
    agent = daemon(QUIET)
    for client in [Client(agent.address) for _ in range(MOST_LISTENERS)]:
        while b": listening" not in client.sock.recv(4096):
            pass
        client.sock.close()

    agent.until(lambda: refused(agent) is None)
