"""`GET /events`: sends events to a client as Server-Sent Events."""

from __future__ import annotations

import json
from collections.abc import Iterator

from flask import Flask, Response
from flask.typing import ResponseReturnValue

from chainbench_agent.runs.event_listeners import EventListener, Events
from chainbench_agent.web.operation import operation

BEAT_S = 5.0
"""How often something is sent when no event happens, which shows whether the client is still connected."""

MEDIA_TYPE = "text/event-stream"


class EventRoutes:
    """Each client takes a thread for as long as it listens."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def add_to(self, app: Flask) -> None:
        app.add_url_rule("/events", "events", self.listen)

    @operation("Rare, notable events, as they happen", media_types=(MEDIA_TYPE,), problems=(404,))
    def listen(self) -> ResponseReturnValue:
        """Server-Sent Events while a run is on; `dropped` says how many are missing, and why."""
        listener = self._events.join()
        answer = Response(_stream(listener), content_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})
        answer.call_on_close(lambda: self._events.leave(listener))
        return answer


def _stream(listener: EventListener) -> Iterator[str]:
    yield ": listening\n\n"
    while True:
        events = listener.take(BEAT_S)
        yield "".join(f"event: {event['name']}\ndata: {json.dumps(event)}\n\n" for event in events) or ": nothing\n\n"
