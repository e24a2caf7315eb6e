"""Reads requests before a thread has to: who sends slowly, or not at all, holds nobody up.

gunicorn gives each connection to a thread, which then waits for what the client has to say; a few clients that say
nothing would take all of them.  Here the worker's one polling loop collects the bytes of all clients, and a thread
only gets a request that has come in whole.  It never reads from the connection again.
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from chainbench_agent.web import http_framing

READ_S = 10.0
"""How long a client has for its request, from its connection on."""

LINGER_S = 2.0
"""How long what a client still sends is read and thrown away: closed at once, it might not see its answer."""

MOST_READ = 256
"""Clients whose requests are being read.  One more takes the place of the one that has been at it for longest."""

PLAIN_REMEDY = "call it by http://, or start the agent with --tls-cert and --tls-key"
TLS_HANDSHAKE = b"\x16\x03"

_PIECE = 64 * 1024

log = logging.getLogger(__name__)


class Client:
    """A connection whose request is being read."""

    __slots__ = ("address", "due_s", "request", "sock", "tls_established")

    def __init__(self, sock: socket.socket, address: Any) -> None:
        self.sock = sock
        self.address = address
        self.request = http_framing.Incoming()
        self.due_s = time.monotonic() + READ_S
        self.tls_established = not isinstance(sock, ssl.SSLSocket)

    def read(self) -> None:
        """Take what is there, until the request is whole.  OSError when it is not yet, or never will be."""
        if not self.tls_established:
            self.sock.do_handshake()  # type: ignore[attr-defined]  # an SSLSocket
            self.tls_established = True
        while not self.request.is_whole:
            piece = self.sock.recv(_PIECE)
            if not piece:
                raise ConnectionAbortedError
            self.request.add(piece)
            if self.request.data.startswith(TLS_HANDSHAKE):
                self.send(http_framing.refusal(400, "this is TLS, and the agent speaks plain HTTP here", PLAIN_REMEDY))
                raise ConnectionAbortedError
            if self.request.is_too_long:
                self.send(
                    http_framing.refusal(
                        431, f"the head is longer than {http_framing.LONGEST_HEAD} bytes", "send fewer headers"
                    )
                )
                raise ConnectionAbortedError
            if self.request.waits and not self.request.is_whole:
                self.request.waits = False
                self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.request.is_cut:
            detail = f"the body, with its chunk sizes, is longer than {http_framing.LONGEST_BODY} bytes"
            self.send(http_framing.refusal(413, detail, "send only the fields of this call"))
            raise ConnectionAbortedError

    def send(self, answer: bytes) -> None:
        """As far as it goes: who does not take a few hundred bytes is not waited for."""
        with suppress(OSError):
            self.sock.send(answer)


class SlowClientGuard:
    """All clients whose requests are being read, oldest first.  Used by one thread."""

    def __init__(self, poller: selectors.BaseSelector, serve: Callable[[Client], None]) -> None:
        self._poller = poller
        self._serve = serve
        self._reading: dict[socket.socket, Client] = {}
        self._leaving: dict[socket.socket, float] = {}

    def admit(self, client: Client) -> None:
        if len(self._reading) >= MOST_READ:
            self.evict("more clients are slow to send than can be waited for")
        client.sock.settimeout(0)
        self._reading[client.sock] = client
        self._poller.register(client.sock, selectors.EVENT_READ, partial(self._read, client))
        self._read(client)

    def evict(self, detail: str) -> bool:
        """Send the slowest away; False if there is none."""
        if not self._reading:
            return False
        self._refuse(next(iter(self._reading.values())), 503, detail)
        return True

    def leave(self, sock: socket.socket) -> None:
        """The answer is sent; close when the client has, or soon."""
        try:
            sock.settimeout(0)
            sock.shutdown(socket.SHUT_WR)
            self._poller.register(sock, selectors.EVENT_READ, self._discard)
        except (OSError, ValueError):  # gone already
            sock.close()
        else:
            self._leaving[sock] = time.monotonic() + LINGER_S

    def expire(self) -> None:
        """End with who has had their time."""
        now_s = time.monotonic()
        for client in [client for client in self._reading.values() if client.due_s <= now_s]:
            self._refuse(client, 408, f"the request did not come in within {READ_S:.0f} s")
        for sock in [sock for sock, due_s in self._leaving.items() if due_s <= now_s]:
            self._close(sock)

    def _read(self, client: Client, _sock: object = None) -> None:
        if client.sock not in self._reading:  # closed since the poller saw it
            return
        try:
            client.read()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return  # a handshake's few bytes always have room
        except OSError as error:
            log.debug("a client went before it had said what it wants: %r", error)
            self._close(client.sock)
        else:
            del self._reading[client.sock]
            self._poller.unregister(client.sock)
            self._serve(client)

    def _refuse(self, client: Client, status: int, detail: str) -> None:
        if client.request.data:  # who has said nothing may have wanted nothing
            client.send(http_framing.refusal(status, detail, "send the whole request at once"))
        self._close(client.sock)

    def _discard(self, sock: Any) -> None:
        if sock not in self._leaving:  # as in _read
            return
        try:
            if sock.recv(_PIECE):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        self._reading.pop(sock, None)
        self._leaving.pop(sock, None)
        self._poller.unregister(sock)
        sock.close()
