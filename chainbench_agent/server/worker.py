"""gunicorn's worker of threads, with a guard against slow clients before them (server/slow_client_guard.py).

Calls that change something (`/stop`) have threads of their own, so that no other request delays them; so has
`/status`.  A thread collects its answer, and the loop sends what the client does not take at once
(server/response_sender.py): a client that reads slowly occupies no thread.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import resource
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from gunicorn.http import get_parser, wsgi
from gunicorn.workers.gthread import TConn, ThreadWorker

from chainbench_agent.server.response_sender import SEND_S, AnswerSender, Outlet
from chainbench_agent.server.slow_client_guard import Client, SlowClientGuard
from chainbench_agent.web import http_framing
from chainbench_agent.web.parser_errors import REFUSED, explained
from chainbench_agent.web.problems import NO_DESCRIPTOR_REMEDY

ACTING_THREADS = 4
STATUS_THREADS = 1

NEEDED_TO_ANSWER = 8
"""With fewer descriptors left than this, slow clients are disconnected."""

SAY_AGAIN_S = 60.0
"""At most how often it is logged that there are no descriptors."""

PAUSE_S = 0.02
"""How long to accept no client when there is no descriptor, so that the loop does not spin."""

_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}
_NOBODY_THERE = {errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED}

log = logging.getLogger(__name__)


class Connection(TConn):  # type: ignore[misc]  # gunicorn has no types
    """One request that has arrived whole; its answer goes to an Outlet."""

    def __init__(self, cfg: Any, client: Client, server: Any) -> None:
        outlet = Outlet(client.sock, client.request.first_line)
        super().__init__(cfg, outlet, client.address, server)
        self.parser = get_parser(cfg, [bytes(client.request.data)], client.address)


class Response(wsgi.Response):  # type: ignore[misc]
    """An answer; without a known length it is a stream, whose thread waits for the client."""

    def send_headers(self) -> None:
        streams = self.response_length is None and not self._omits_body and not self.headers_sent
        super().send_headers()
        if streams:
            self.sock.stream(SEND_S)


class GuardedWorker(ThreadWorker):  # type: ignore[misc]
    """A worker of threads; `tls` of its application is the context for clients, or None."""

    def init_process(self) -> None:
        self._acting = ThreadPoolExecutor(ACTING_THREADS)
        self._status = ThreadPoolExecutor(STATUS_THREADS)
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._said_s = -math.inf
        super().init_process()

    def run(self) -> None:
        self._guard = SlowClientGuard(self.poller, self._serve)
        self._sender = AnswerSender(self.poller, self._guard.leave, self.app.cut_answers)
        super().run()
        self._sender.abandon()

    @property
    def nr_conns(self) -> int:
        """Requests in progress; at the end also answers that are being sent, which gunicorn then waits for."""
        return self._under_way + (0 if self.alive else len(self._sender))

    @nr_conns.setter
    def nr_conns(self, count: int) -> None:
        self._under_way = count

    def accept(self, listener: socket.socket) -> None:
        try:
            sock, address = listener.accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:
                self._accept_without_descriptors(listener, error)
            elif error.errno not in _NOBODY_THERE:
                raise
            return
        if sock.fileno() + NEEDED_TO_ANSWER >= _limit():
            self._make_room()
        try:
            if tls := self.app.tls:
                sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:  # the client has disconnected
            sock.close()
        else:
            self._guard.admit(Client(sock, address))

    def _make_room(self) -> bool:
        """Disconnect several slow clients: serving the others needs descriptors too.  False if there were none."""
        gone = [self._guard.evict("the agent has no descriptor left") for _ in range(NEEDED_TO_ANSWER)]
        return any(gone)

    def _accept_without_descriptors(self, listener: socket.socket, error: OSError) -> None:
        """Disconnect slow clients; if there are none, answer one new client using the spare descriptor."""
        if time.monotonic() - self._said_s > SAY_AGAIN_S:
            self._said_s = time.monotonic()
            log.error(
                "no descriptor for a client: %s; the limit is %d, raise it (LimitNOFILE=)", error.strerror, _limit()
            )
        if self._make_room():
            return  # the listener is still readable
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
            detail = f"the agent has all of its {_limit()} descriptors open"
            self._turn_away(listener, http_framing.refusal(503, detail, NO_DESCRIPTOR_REMEDY))
        time.sleep(PAUSE_S)
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def _turn_away(self, listener: socket.socket, answer: bytes) -> None:
        with suppress(OSError):
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(0)
                with suppress(BlockingIOError):
                    sock.recv(http_framing.LONGEST_HEAD)  # unread, it would cut off the answer
                if not self.app.tls:
                    sock.send(answer)

    def _serve(self, client: Client) -> None:
        self._under_way += 1
        conn = Connection(self.cfg, client, client.sock.getsockname())
        request = client.request
        pool = self._acting if request.acts else self._status if request.asks_for_status else self.tpool
        pool.submit(self.handle, conn).add_done_callback(
            lambda future: self.method_queue.defer(self.finish_request, conn, future)
        )

    def handle(self, conn: Connection) -> None:
        """Answer the request and send what the client takes at once.  Called in a thread; raises nothing."""
        outlet: Outlet = conn.sock
        try:
            self.handle_request(next(conn.parser), conn)
        except REFUSED as error:
            self._refuse(outlet, *explained(error))
        except StopIteration:
            self._refuse(outlet, 400, "the request has no first line", "send METHOD PATH HTTP/1.1")
        except TimeoutError:
            self.app.cut_answers.count("too_slow")
            log.warning("%s: the stream ends: its client has taken nothing for %.0f s", outlet.call, SEND_S)
        except OSError as error:
            log.debug("%s: the client of a stream has gone: %r", outlet.call, error)
        except Exception:
            log.exception("%s failed", outlet.call)
            self._refuse(outlet, 500, "the agent has a bug", "see the agent's log for the details")
        outlet.push()

    def handle_request(self, req: Any, conn: Connection) -> None:
        """Let the application answer one request; the connection is closed after it."""
        resp, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg, response_class=Response)
        environ["wsgi.multithread"] = True
        resp.force_close()
        parts = self.wsgi(environ, resp.start_response)
        try:
            for part in parts:
                resp.write(part)
            resp.close()
        finally:
            if hasattr(parts, "close"):
                parts.close()

    def _refuse(self, outlet: Outlet, status: int, detail: str, remedy: str) -> None:
        log.info("%s is refused: %s", outlet.call, detail)
        if outlet.discard():
            outlet.sendall(http_framing.refusal(status, detail, remedy))

    def finish_request(self, conn: Connection, fs: Future[Any]) -> None:
        del fs  # `handle` raises nothing
        self._under_way -= 1
        self._sender.take(conn.sock)

    def murder_pending(self) -> None:
        self._guard.expire()
        self._sender.expire()


def _limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
