"""`GET /events`, with a source that emits one event again and again."""

import json
import time

from chainbench_agent.loading.event_records import EventRecord
from chainbench_agent.runs.event_listeners import MOST_LISTENERS
from chainbench_agent.web.app import create_app
from chainbench_agent.web.problems import LISTENERS_REMEDY


class Often:
    on = False

    def listen(self, *, on):
        self.on = on

    def poll(self, timeout_ms):
        del timeout_ms
        time.sleep(0.01)
        return [EventRecord(time.monotonic_ns(), "io.slow_fsync", 7, "a\nb", {"latency_ns": 1009}, "run-1")]

    def dropped(self):
        return {"held_back": 0, "without_room": 0}


def test_a_stream(runs, labels):
    """Server-Sent Events, each a name and one line of JSON; emitting stops when the last client leaves."""
    source = Often()
    client = create_app(runs, lambda _: (b"", ""), ring=source).test_client()
    client.post("/start", json=labels)
    answer = client.get("/events")
    pieces = iter(answer.response)
    first, second = next(pieces).decode(), next(pieces).decode()
    event, data = second.split("\n\n")[0].split("\n")
    assert source.on
    answer.close()

    assert answer.content_type == "text/event-stream"
    assert first == ": listening\n\n"
    assert event == "event: io.slow_fsync"
    event = json.loads(data.removeprefix("data: "))
    assert (event["run_id"], event["pid"], event["command"], event["latency_ns"]) == ("run-1", 7, "a\nb", 1009)
    assert not source.on


def test_one_listener_too_many(runs):
    """The answer has the remedy, and is not that of a failed collector."""
    client = create_app(runs, lambda _: (b"", ""), ring=Often()).test_client()
    listening = [client.get("/events") for _ in range(MOST_LISTENERS)]
    answer = client.get("/events")
    for one in listening:
        one.close()

    assert (answer.status_code, answer.get_json(force=True)["remedy"]) == (503, LISTENERS_REMEDY)


def test_an_agent_without_events(client):
    answer = client.get("/events")

    assert answer.status_code == 404
    assert "--events" in answer.get_json(force=True)["remedy"]
