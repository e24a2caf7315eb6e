"""gunicorn's worker of threads, with an intake before them (web/intake.py).

Calls that act (`/stop`) have threads of their own, so that nothing which is merely asked for can be in their way.
Ordinary answers fit into the socket's buffer, so that who does not read them does not hold a thread.
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

from gunicorn.http import get_parser
from gunicorn.workers.gthread import TConn, ThreadWorker

from chainbench_agent.web import wire
from chainbench_agent.web.intake import Client, Intake
from chainbench_agent.web.problems import NO_DESCRIPTOR_REMEDY

SEND_S = 10.0
"""How long a thread waits for a client that does not take more of its answer."""

ACTING_THREADS = 4

NEEDED_TO_ANSWER = 8
"""With less descriptors left than this, slow clients have to go."""

SAY_AGAIN_S = 60.0
"""How often it is logged that there are no descriptors."""

PAUSE_S = 0.02
"""How long nobody is admitted where the kernel has no descriptor: what is wrong will last, and this is no busy loop."""

_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}
_NOBODY_THERE = {errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED}

log = logging.getLogger(__name__)


class Connection(TConn):  # type: ignore[misc]  # gunicorn has no types
    """One request, that has come in whole."""

    def __init__(self, cfg: Any, client: Client, server: Any) -> None:
        super().__init__(cfg, client.sock, client.address, server)
        self.parser = get_parser(cfg, [bytes(client.request.data)], client.address)
        self.data_ready = True

    def init(self) -> None:
        """Called in the thread, where gunicorn has just made the socket wait for ever."""
        self.initialized = True
        self.sock.settimeout(SEND_S)


class IntakeWorker(ThreadWorker):  # type: ignore[misc]
    """`tls` of the application is the context for its clients, or None."""

    def init_process(self) -> None:
        self._acting = ThreadPoolExecutor(ACTING_THREADS)
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._said_s = -math.inf
        super().init_process()

    def run(self) -> None:
        self._intake = Intake(self.poller, self._serve)
        super().run()

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
        except OSError:  # gone already
            sock.close()
        else:
            self._intake.admit(Client(sock, address))

    def _make_room(self) -> bool:
        """Slow clients go first, and several: who is served needs descriptors as well."""
        gone = [self._intake.evict("the agent has no descriptor left") for _ in range(NEEDED_TO_ANSWER)]
        return any(gone)

    def _accept_without_descriptors(self, listener: socket.socket, error: OSError) -> None:
        """Where no slow client can go, who comes is told, with the descriptor that was kept for this."""
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
            self._turn_away(listener, wire.refusal(503, detail, NO_DESCRIPTOR_REMEDY))
        time.sleep(PAUSE_S)
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def _turn_away(self, listener: socket.socket, answer: bytes) -> None:
        with suppress(OSError):
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(0)
                with suppress(BlockingIOError):
                    sock.recv(wire.LONGEST_HEAD)  # unread, it would cut off the answer
                if not self.app.tls:
                    sock.send(answer)

    def _serve(self, client: Client) -> None:
        self.nr_conns += 1
        conn = Connection(self.cfg, client, client.sock.getsockname())
        pool = self._acting if client.request.acts else self.tpool
        pool.submit(self.handle, conn).add_done_callback(
            lambda future: self.method_queue.defer(self.finish_request, conn, future)
        )

    def finish_request(self, conn: Connection, fs: Future[Any]) -> None:
        del fs  # `handle` raises nothing
        self.nr_conns -= 1
        self._intake.leave(conn.sock)

    def murder_pending(self) -> None:
        self._intake.expire()


def _limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
