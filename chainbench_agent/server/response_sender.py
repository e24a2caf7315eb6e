"""Sends answers without a thread: the worker's polling loop sends what a client does not take at once.

A thread that waits for slow clients could not answer other requests.  An answer that is not sent whole is logged and
counted, and the client sees fewer bytes than its Content-Length says.
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

SEND_S = 10.0
"""How long a client may take nothing of its answer before it is disconnected."""

LONGEST_S = 600.0
"""How long a client has to take its whole answer."""

MOST_SENDING = 128
"""Clients that are sent to at a time.  One more replaces the one that has taken longest."""

MOST_BYTES = 64 << 20
"""Size of all answers in memory; a buffer that several share counts once."""

CAUSES = ("client_left", "too_slow", "no_room", "shutdown")

_PIECE = 64 * 1024
_TURN = 1 << 20
"""Bytes for one client before the loop serves the next."""

_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

log = logging.getLogger(__name__)


class CutAnswers:
    """Counts answers that were not sent whole, by cause.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(CAUSES, 0)

    def count(self, cause: str) -> None:
        with self._lock:
            self._counts[cause] += 1

    def counts(self) -> Mapping[str, int]:
        with self._lock:
            return dict(self._counts)


class Outlet:
    """Stands in for the client's socket in gunicorn, and collects the answer.  `call`: the request's first line.

    An answer of unknown length (a stream) is not collected: its thread waits for the client, at most SEND_S.
    """

    def __init__(self, sock: socket.socket, call: str) -> None:
        self.sock = sock
        self.call = call
        self.sent = 0
        self.total = 0
        self.error: OSError | None = None
        self.progress_s = self.begun_s = time.monotonic()
        self._parts: deque[memoryview] = deque()
        self._piece = memoryview(b"")
        self._streams = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def sendall(self, data: bytes) -> None:
        if self._streams:
            self.sock.sendall(data)
        elif data:
            self._parts.append(memoryview(data))
            self.total += len(data)

    def send(self, data: bytes) -> int:
        """Drop an interim answer (100 Continue): the request has already arrived whole."""
        return len(data)

    def stream(self, patience_s: float) -> None:
        """Send at once from now on, and wait for the client at most `patience_s`."""
        self._streams = True
        self.sock.settimeout(patience_s)
        head = b"".join(self._parts)
        self.discard()
        self.sock.sendall(head)

    def discard(self) -> bool:
        """Drop what was collected; False if some of it may already have been sent."""
        self._parts.clear()
        self.total = 0
        return not self._streams

    @property
    def buffers(self) -> list[memoryview]:
        """The parts of the answer that are in memory."""
        return [self._piece, *self._parts]

    @property
    def is_sent(self) -> bool:
        return not self._piece and not self._parts

    def push(self, most: int = _TURN) -> None:
        """Send what the client takes now, without waiting; sets `error` if the client can take no more."""
        try:
            self.sock.settimeout(0)
            while most > 0 and self._next_piece():
                count = self.sock.send(self._piece)
                self._piece = self._piece[count:]
                self.sent += count
                most -= count
                self.progress_s = time.monotonic()
        except _NOT_NOW:
            return
        except OSError as error:
            self.error = error

    def _next_piece(self) -> bool:
        """Take the next piece.  TLS must get the same piece again until it is sent; small parts are joined."""
        if not self._piece and self._parts:
            first = self._parts.popleft()
            self._piece, rest = first[:_PIECE], first[_PIECE:]
            if rest:
                self._parts.appendleft(rest)
            elif self._parts and len(first) < _PIECE:
                self._piece = memoryview(self._join(first))
        return bool(self._piece)

    def _join(self, first: memoryview) -> bytes:
        joined = bytearray(first)
        while self._parts and len(joined) + len(self._parts[0]) <= _PIECE:
            joined += self._parts.popleft()
        return bytes(joined)


class AnswerSender:
    """Every answer that waits for its client, oldest first.  Used only by the loop.

    `leave` is called with a socket when its answer has been sent.
    """

    def __init__(
        self, poller: selectors.BaseSelector, leave: Callable[[socket.socket], None], cut_answers: CutAnswers
    ) -> None:
        self._poller = poller
        self._leave = leave
        self._cut_answers = cut_answers
        self._sending: dict[Outlet, list[int]] = {}  # and which buffers it holds
        self._holders: Counter[int] = Counter()
        self._sizes: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._sending)

    def take(self, outlet: Outlet) -> None:
        """Finish an answer that is sent or has failed, and register any other with the loop."""
        if outlet.error or outlet.is_sent:
            self._finish(outlet)
            return
        try:
            self._poller.register(outlet.sock, selectors.EVENT_WRITE, partial(self._continue, outlet))
        except (OSError, ValueError) as error:
            outlet.error = error if isinstance(error, OSError) else OSError(str(error))
            self._finish(outlet)
            return
        self._hold(outlet)
        while len(self._sending) > MOST_SENDING or (len(self._sending) > 1 and sum(self._sizes.values()) > MOST_BYTES):
            self._cut(next(iter(self._sending)), "no_room", "more answers wait for slow clients than memory is for")

    def expire(self) -> None:
        """Disconnect clients whose time is over."""
        now_s = time.monotonic()
        for outlet in list(self._sending):
            if now_s - outlet.progress_s > SEND_S:
                self._cut(outlet, "too_slow", f"its client has taken nothing for {SEND_S:.0f} s")
            elif now_s - outlet.begun_s > LONGEST_S:
                self._cut(outlet, "too_slow", f"it was not taken within {LONGEST_S:.0f} s")

    def abandon(self) -> None:
        """Disconnect every client, because the process ends."""
        for outlet in list(self._sending):
            self._cut(outlet, "shutdown", "the agent ends")

    def _continue(self, outlet: Outlet, _sock: object = None) -> None:
        if outlet not in self._sending:  # cut since the poller saw it
            return
        outlet.push()
        if outlet.error or outlet.is_sent:
            self._release(outlet)
            self._finish(outlet)

    def _finish(self, outlet: Outlet) -> None:
        if outlet.error:
            self._report(outlet, "client_left", f"its client has gone ({outlet.error.strerror or outlet.error})")
            outlet.sock.close()
        else:
            self._leave(outlet.sock)

    def _cut(self, outlet: Outlet, cause: str, why: str) -> None:
        self._release(outlet)
        self._report(outlet, cause, why)
        outlet.sock.close()

    def _report(self, outlet: Outlet, cause: str, why: str) -> None:
        self._cut_answers.count(cause)
        level = logging.INFO if cause == "client_left" else logging.WARNING
        log.log(level, "%s: %d of %d bytes were sent: %s", outlet.call, outlet.sent, outlet.total, why)

    def _hold(self, outlet: Outlet) -> None:
        held = {id(buffer.obj): len(buffer) for buffer in outlet.buffers if buffer}
        self._sending[outlet] = list(held)
        self._sizes.update(held)
        self._holders.update(held.keys())

    def _release(self, outlet: Outlet) -> None:
        with suppress(KeyError, ValueError, OSError, RuntimeError):
            self._poller.unregister(outlet.sock)
        for buffer in self._sending.pop(outlet):
            self._holders[buffer] -= 1
            if not self._holders[buffer]:
                del self._holders[buffer], self._sizes[buffer]
