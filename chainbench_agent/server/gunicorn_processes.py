"""gunicorn's two processes, as the agent wants them: a master that listens, and one worker that does everything.

Their application (gunicorn_server.py) builds the agent in the worker, and takes it down there.
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
"""How long a worker that ends waits for requests under way."""

log = logging.getLogger(__name__)


class Worker(GuardedWorker):
    """Ends in one way, whatever the signal: requests under way are answered, the run is finished."""

    _builds = False

    def load_wsgi(self) -> None:
        self._builds = True
        super().load_wsgi()
        self._builds = False

    def handle_exit(self, sig: int, frame: Any) -> None:
        """At once while the agent is built: nobody waits for the compiler, and what was begun goes with the process."""
        super().handle_exit(sig, frame)
        if self._builds:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # Ctrl-C comes with the master's SIGQUIT; this is the way out
            sys.exit(0)

    def notify(self) -> None:
        """The loop has turned."""
        super().notify()
        self.app.turned_s = time.monotonic()

    def init_signals(self) -> None:
        super().init_signals()
        signal.signal(signal.SIGHUP, self.handle_exit)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Not at once, as gunicorn has it: Ctrl-C is followed by the master's SIGQUIT, in the midst of it all."""
        self.handle_exit(sig, frame)

    def run(self) -> None:
        log.info("serving on %s", url(self.sockets[0], tls=self.app.tls is not None))
        self.cfg.set("graceful_timeout", GRACE_S)  # in this process; the master waits for longer
        self.app.supervisor.tell("READY=1", "STATUS=serving")
        super().run()
        self.app.supervisor.tell("STATUS=finishing the active run")
        self.app.unload()
        logging.shutdown()
        os._exit(0)  # Python would wait for the threads, and so for any client that sends nothing


class Master(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """Keeps one worker, never two: what gunicorn does on other signals is left out."""

    def __init__(self, app: Any, listener: socket.socket) -> None:
        super().__init__(app)
        self.LISTENERS = [listener]

    def handle_hup(self) -> None:
        """Read the settings again, and make a new worker, if a service manager asks; else the terminal is gone: end."""
        if not self.app.supervisor.listens:
            self.handle_term()
        self.app.supervisor.tell("RELOADING=1")
        self.app.read_settings_again()
        self.kill_workers(signal.SIGTERM)

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        self.app.supervisor.tell("STOPPING=1")
        super().halt(reason, exit_status)

    def handle_ttin(self) -> None: ...

    def handle_ttou(self) -> None: ...

    def handle_usr2(self) -> None: ...

    def reap_workers(self) -> None:
        """A worker that could not build the agent has said why; gunicorn would only add noise."""
        try:
            super().reap_workers()
        except HaltServer as halt:
            sys.exit(halt.exit_status)
