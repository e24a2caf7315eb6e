"""Passes events to clients that listen.  A slow client delays nothing: the events it misses are counted."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from chainbench_agent.errors import AgentError
from chainbench_agent.loading.event_records import Told

MOST_LISTENERS = 4
"""Each takes a thread of the web server."""

MOST_WAITING = 1000
"""Events that wait for one listener."""

POLL_MS = 200

log = logging.getLogger(__name__)


class NoEvents(AgentError):  # noqa: N818 - reads as a state, see errors.py
    """Events are not emitted here."""


class NoPlace(AgentError):  # noqa: N818 - reads as a state, see errors.py
    """As many clients listen as may."""


class Source(Protocol):
    """Where events come from: Ring of kernel/reading/ring_buffer.py."""

    def listen(self, *, on: bool) -> None: ...

    def poll(self, timeout_ms: int) -> list[Told]: ...

    def dropped(self) -> dict[str, int]: ...


@dataclass(eq=False)
class EventListener:
    """One client; `take` waits for events."""

    _waiting: deque[dict[str, Any]] = field(default_factory=deque)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _missed: int = 0

    def put(self, events: list[dict[str, Any]]) -> None:
        with self._changed:
            room = MOST_WAITING - len(self._waiting)
            self._waiting.extend(events[:room])
            self._missed += len(events[room:])
            self._changed.notify()

    def take(self, timeout_s: float) -> list[dict[str, Any]]:
        """Every event that waits, and then how many were missed; empty after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._missed, timeout_s)
            taken = list(self._waiting)
            self._waiting.clear()
            if self._missed:
                taken.append(_dropped("slow_listener", self._missed))
                self._missed = 0
            return taken


class Events:
    """All listeners of one source.  Thread-safe.  While none listens, the kernel side emits nothing."""

    def __init__(self, source: Source | None) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._listeners: list[EventListener] = []
        self._busy = False  # a thread polls

    def join(self) -> EventListener:
        """Listen, until `leave`.  NoEvents if there are none, NoPlace if as many listen as may.

        An exception leaves no listener behind.
        """
        if self._source is None:
            raise NoEvents("this agent emits no events")
        with self._lock:
            if len(self._listeners) >= MOST_LISTENERS:
                raise NoPlace(f"{MOST_LISTENERS} clients are listening already, and more are not possible")
            self._source.listen(on=True)
            if not self._busy:  # the thread then waits for the lock, and finds the listener
                threading.Thread(target=self._pass_on, args=(self._source,), daemon=True).start()
                self._busy = True
            listener = EventListener()
            self._listeners.append(listener)
        return listener

    def leave(self, listener: EventListener) -> None:
        with self._lock:
            self._listeners.remove(listener)
            if not self._listeners and self._source:
                self._source.listen(on=False)

    def _pass_on(self, source: Source) -> None:
        before: dict[str, int] = {}
        while self._anybody():
            try:
                before = before or source.dropped()
                events = [_as_json(event) for event in source.poll(POLL_MS)]
                now = source.dropped()
            except OSError:
                log.exception("events cannot be read")
                time.sleep(POLL_MS / 1000)
                continue
            events += [_dropped(cause, count - before[cause]) for cause, count in now.items() if count > before[cause]]
            before = now
            with self._lock:
                listeners = tuple(self._listeners)
            for listener in listeners if events else ():
                listener.put(events)

    def _anybody(self) -> bool:
        with self._lock:
            self._busy = bool(self._listeners)
            return self._busy


def _as_json(event: Told) -> dict[str, Any]:
    at = (time.time_ns() - time.monotonic_ns() + event.at_ns) / 1e9
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    who = {"name": event.name, "pid": event.pid, "command": event.command}
    return {"at": moment, "run_id": event.run_id, **who, **event.details}


def _dropped(cause: str, count: int) -> dict[str, Any]:
    return {"name": "dropped", "cause": cause, "count": count}
