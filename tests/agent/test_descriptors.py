"""An agent without free descriptors: what it answers, and what it stores."""

import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from daemon import LABELS

HEAD = b"POST /start HTTP/1.1\r\nHost: localhost\r\n"


@contextmanager
def slow_clients(agent):
    """Eleven, who have begun to ask, behind all that the worker has open: who goes leaves a number to be had again."""
    settled(agent)
    with ExitStack() as clients:
        slow = [clients.enter_context(socket.create_connection(agent.address, timeout=60)) for _ in range(11)]
        for client in slow:
            client.sendall(HEAD)
        agent.client.status()
        yield slow


def descriptors(pid):
    return {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}


def settled(agent):
    """The descriptors of the worker when nothing is under way."""

    def same_again():
        before = descriptors(agent.worker())
        time.sleep(0.2)
        return before == descriptors(agent.worker()) and before

    return agent.until(same_again)


@contextmanager
def descriptors_limited(agent, more=0):
    """The worker may have so many more than it has when nothing is under way; a limit is the number of the next one."""
    worker = agent.worker()
    used = settled(agent)
    free = [number for number in range(len(used) + more + 1) if number not in used]
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (free[more], limits[1]))
    try:
        yield
    finally:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)


def test_out_of_descriptors(agent):
    """The slowest client is disconnected first.  The active run continues, and is stored."""
    agent.client.start(**LABELS)
    with slow_clients(agent) as slow:
        with descriptors_limited(agent):
            beside = agent.get("/status")
        told = slow[0].makefile("rb").readline()
    evidence = agent.client.stop()

    assert beside.ok
    assert told == b"HTTP/1.1 503 Service Unavailable\r\n"
    assert agent.log.count("no descriptor for a client: Too many open files") == 1
    assert agent.client.run(evidence["run"]["id"])["evidence"] == evidence


def test_out_of_descriptors_without_slow_clients(agent):
    """A client gets 503 with the reason; afterwards everything works again."""
    worker = agent.worker()
    agent.client.start(**LABELS)
    with descriptors_limited(agent):
        told = agent.get("/status")

    assert told.status_code == 503
    assert "descriptors open" in told.json()["detail"]
    assert "LimitNOFILE" in told.json()["remedy"]
    assert "no descriptor for a client: Too many open files" in agent.log
    assert agent.client.stop()["run"]["ended_by"] == "stop"
    assert agent.worker() == worker


def test_a_start_without_descriptors(daemon):
    """If the collector does not get a descriptor, the answer is 503 with the kernel's reason; the next start works."""
    agent = daemon(
        """
    import os
    class Needy(FakeCollector):
        def start(self, request, run_id=""):
            fds = []
            try:
                for _ in range(101):
                    fds.append(os.open("/dev/null", os.O_RDONLY))
                super().start(request, run_id)
            finally:
                for fd in fds:
                    os.close(fd)
    return Needy()
"""
    )
    agent.client.status()
    with descriptors_limited(agent, more=50):
        refused = agent.post("/start", **LABELS)

    assert refused.status_code == 503
    assert "Too many open files" in refused.json()["detail"]
    agent.client.start(**LABELS)


def test_a_run_stopped_without_descriptors_is_stored(agent):
    """The store holds what it writes with: that was opened when the agent came up."""
    run_id = agent.client.start(**LABELS)["run_id"]
    with slow_clients(agent), descriptors_limited(agent):
        evidence = agent.client.stop()

    assert "not_kept" not in evidence
    assert agent.client.run(run_id)["evidence"] == evidence


GREEDY = """
    import resource, time
    from pathlib import Path
    from chainbench_agent.store import sql
    place = Path({place!r})
    summary = sql.summary
    def reading(row):
        (place / "reading").touch()
        while (place / "hold").exists():
            time.sleep(0.01)
        return summary(row)
    sql.summary = reading
    class Greedy(FakeCollector):
        def stop(self):
            if (place / "hold").exists():
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            super().stop()
    return Greedy()
"""
"""While there is a file `hold`, a reader of the store keeps its connection, and a stop leaves no descriptor."""


def test_a_run_stopped_without_descriptors_during_a_read_is_stored_later(daemon, tmp_path):
    """The reader has the store's one open connection: /stop answers all the same, and why; the next run makes good."""
    agent = daemon(GREEDY.format(place=str(tmp_path)), store="sqlite", state_dir=tmp_path / "state", checkpoint_s=3600)
    run_id = agent.client.start(**LABELS)["run_id"]
    limits = resource.prlimit(agent.worker(), resource.RLIMIT_NOFILE)
    (tmp_path / "hold").touch()
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(agent.get, "/runs")
        try:
            agent.until((tmp_path / "reading").exists)
            evidence = agent.client.stop()
        finally:
            resource.prlimit(agent.worker(), resource.RLIMIT_NOFILE, limits)
            (tmp_path / "hold").unlink()
        assert read.result().json()["runs"][0]["result"] == "running"
    not_kept = evidence.pop("not_kept")
    agent.client.start(**LABELS)
    later = agent.client.stop()

    assert "unable to open database file; the agent has no descriptor left;" in not_kept
    assert "LimitNOFILE" in not_kept
    assert evidence["exec"] == {"exec_count": 53}
    assert "not_kept" not in later
    assert agent.client.run(run_id)["evidence"] == evidence
    assert f"run {run_id} is stored now" in agent.log
