"""Reads requests before a thread gets them: a client that sends slowly, or not at all, delays no other.

gunicorn gives each connection to a thread, which waits for the request; a few clients that send nothing would occupy
all threads.  Here the worker's polling loop collects the bytes of all clients, and a thread gets a request only when
it has arrived whole.  The thread never reads from the connection.
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
"""How long a client has to send its request after it has connected."""

LINGER_S = 2.0
"""How long to read and drop what a client still sends: if closed at once, it might not see its answer."""

MOST_READ = 256
"""Clients whose requests are being read.  One more replaces the one that has taken longest."""

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
        """Read what has arrived, until the request is whole.  OSError if it is not yet, or never will be."""
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
        """Send as much as the client takes at once: a few hundred bytes are not worth waiting for."""
        with suppress(OSError):
            self.sock.send(answer)


class SlowClientGuard:
    """Every client whose request is being read, oldest first.  Used by one thread."""

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
        """Disconnect the slowest client; False if there is none."""
        if not self._reading:
            return False
        self._refuse(next(iter(self._reading.values())), 503, detail)
        return True

    def leave(self, sock: socket.socket) -> None:
        """Close a connection whose answer is sent, when the client has closed it or LINGER_S later."""
        try:
            sock.settimeout(0)
            sock.shutdown(socket.SHUT_WR)
            self._poller.register(sock, selectors.EVENT_READ, self._discard)
        except (OSError, ValueError):  # gone already
            sock.close()
        else:
            self._leaving[sock] = time.monotonic() + LINGER_S

    def expire(self) -> None:
        """Disconnect clients whose time is over."""
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
            return  # the few bytes of a handshake always fit into the send buffer
        except OSError as error:
            log.debug("a client disconnected before its request was complete: %r", error)
            self._close(client.sock)
        else:
            del self._reading[client.sock]
            self._poller.unregister(client.sock)
            self._serve(client)

    def _refuse(self, client: Client, status: int, detail: str) -> None:
        if client.request.data:  # a client that has sent nothing may only have probed the port
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
