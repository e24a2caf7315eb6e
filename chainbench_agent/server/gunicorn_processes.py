"""gunicorn's two processes, adapted to the agent: a master that listens, and one worker that does everything else.

The application (gunicorn_server.py) builds the agent in the worker, and closes it there.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from chainbench_agent.server.listener import url
from chainbench_agent.server.worker import GuardedWorker

GRACE_S = 1
"""How long a worker that ends waits for requests in progress."""

log = logging.getLogger(__name__)


class Worker(GuardedWorker):
    """Ends in the same way on every signal: answers requests in progress and finishes the run."""

    _builds = False

    def load_wsgi(self) -> None:
        self._builds = True
        super().load_wsgi()
        self._builds = False

    def handle_exit(self, sig: int, frame: Any) -> None:
        """End, and at once while the agent is being built: nothing that was begun outlives the process."""
        super().handle_exit(sig, frame)
        if self._builds:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
                signal.signal(
                    number, signal.SIG_IGN
                )  # Ctrl-C is followed by the master's SIGQUIT; this exit must finish
            sys.exit(0)

    def notify(self) -> None:
        """Note that the loop has turned."""
        super().notify()
        self.app.turned_s = time.monotonic()

    def init_signals(self) -> None:
        super().init_signals()
        signal.signal(signal.SIGHUP, self.handle_exit)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """End as on other signals; gunicorn would exit at once, and the master sends SIGQUIT after every Ctrl-C."""
        self.handle_exit(sig, frame)

    def run(self) -> None:
        log.info("serving on %s", url(self.sockets[0], tls=self.app.tls is not None))
        self.cfg.set("graceful_timeout", GRACE_S)  # in this process; the master waits longer
        self.app.systemd.notify("READY=1", "STATUS=serving")
        super().run()
        self.app.systemd.notify("STATUS=finishing the active run")
        self.app.unload()
        logging.shutdown()
        os._exit(0)  # Python would wait for the threads, and so for clients that send nothing


class Master(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """Runs one worker, never two: signals that would add or remove workers do nothing."""

    def __init__(self, app: Any, listener: socket.socket) -> None:
        super().__init__(app)
        self.LISTENERS = [listener]

    def handle_hup(self) -> None:
        """Read the settings again and start a new worker.  Without a service manager the terminal has closed: end."""
        if not self.app.systemd.listens:
            self.handle_term()
        self.app.systemd.notify("RELOADING=1")
        self.app.read_settings_again()
        self.kill_workers(signal.SIGTERM)

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        self.app.systemd.notify("STOPPING=1")
        super().halt(reason, exit_status)

    def handle_ttin(self) -> None: ...

    def handle_ttou(self) -> None: ...

    def handle_usr2(self) -> None: ...

    def reap_workers(self) -> None:
        """Exit without gunicorn's message if a worker could not build the agent: the worker has logged the reason."""
        try:
            super().reap_workers()
        except HaltServer as halt:
            sys.exit(halt.exit_status)
