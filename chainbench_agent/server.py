"""Serves the agent with gunicorn, from code: a master that listens, and one worker that does everything.

One worker, because the BPF objects and the state of the run live in a process; it answers with threads.
The agent is built in the worker, after the fork, and taken down there whatever signal ends it.
All modules are imported before the fork: what the two processes share saves 9 MB.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger

from chainbench_agent.collector.base import Collector
from chainbench_agent.errors import AgentError
from chainbench_agent.export.prometheus import Exporter, agent_registry
from chainbench_agent.log_entries import OneEntry
from chainbench_agent.probes import CATALOG
from chainbench_agent.runs import Runs
from chainbench_agent.settings import Settings
from chainbench_agent.slate import Slate
from chainbench_agent.web.access import Access, access_for
from chainbench_agent.web.app import create_app
from chainbench_agent.web.listener import is_overheard, listen, tls_for, url
from chainbench_agent.web.status import VERSION
from chainbench_agent.web.worker import IntakeWorker

OpenCollector = Callable[[Settings], Collector]

GRACE_S = 1
"""How long a worker that ends waits for requests under way."""

KILL_AFTER_S = 12
"""How long the master waits for it: GRACE_S, twice runs.SETTLE_S, and the collector's last words."""

MEMORY = "/dev/shm"  # noqa: S108
"""Where the worker has the file that it touches every second: on a disk that would be seen in `biolatency`."""

log = logging.getLogger(__name__)


def serve(settings: Settings, open_collector: OpenCollector) -> None:
    """Serve until SIGTERM or SIGINT, then exit with 0; with 3 if the agent cannot be built.

    Raises InputError when the address cannot be listened on, or a token or a certificate cannot be used.
    """
    log_to_stderr(settings.log_level)
    access, tls = access_for(settings), tls_for(settings.tls_cert, settings.tls_key)
    protected = bool(access.token) or settings.insecure
    with listen(settings.host, settings.port, protected=protected, group=access.group) as listener:
        if access.token and is_overheard(listener, tls=tls is not None):
            log.warning("tokens cross the network in the clear; give the agent --tls-cert and --tls-key")
        master = Master(Server(settings, open_collector, access, tls), listener)
        gc.freeze()  # what the worker inherits is not collected there, which would write to, and so copy, every page
        master.run()


def log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneEntry("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(handlers=[handler], level=level.upper())


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types; nor have those below
    """The agent, as gunicorn's application."""

    def __init__(
        self, settings: Settings, open_collector: OpenCollector, access: Access, tls: ssl.SSLContext | None
    ) -> None:
        self.tls = tls
        self._access = access
        self._slate = Slate()
        self._settings = settings
        self._open_collector = open_collector
        self._collector: Collector | None = None
        self._runs: Runs | None = None
        super().__init__()

    def load_config(self) -> None:
        options = {
            "workers": 1,
            "worker_class": Worker,
            "threads": 8,
            # A machine that the benchmark starves for a minute must not cost the run its worker.
            "timeout": 0,
            "graceful_timeout": KILL_AFTER_S,
            # No connection is kept: a shutdown waits for none, and no runner posts into one that is closing.
            "keepalive": 0,
            # Requests that wait for a thread; the kernel's queue has the others.
            "worker_connections": 256,
            "certfile": self._settings.tls_cert and str(self._settings.tls_cert),  # for `wsgi.url_scheme` alone
            "forwarded_allow_ips": "",
            "worker_tmp_dir": MEMORY if os.access(MEMORY, os.W_OK) else None,
            "control_socket_disable": True,
            "logger_class": GunicornLog,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Build the agent.  Called in the worker, which ends if this fails, and the master with it."""
        settings = self._settings
        try:
            self._collector = self._open_collector(settings)
        except AgentError as error:
            log.error("%s", error)  # noqa: TRY400 - a sentence for people
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        self._runs = runs = Runs(self._collector, settings.machine, max_kept=settings.max_kept_label_sets)
        runs.take_over(self._slate)
        exporter = Exporter(CATALOG, agent_registry(VERSION, runs.status().collector.backend))
        return create_app(
            runs,
            lambda accept: exporter.render(runs, accept),
            settings.sample_interval,
            access=self._access,
            ring=self._collector.ring,
        )

    def unload(self) -> None:
        """Finish the run that is on, and give everything back."""
        if self._runs:
            self._runs.shutdown()
        if self._collector:
            self._collector.close()


class Worker(IntakeWorker):
    """Ends in one way, whatever the signal: requests under way are answered, the run is finished."""

    def init_signals(self) -> None:
        super().init_signals()
        signal.signal(signal.SIGHUP, self.handle_exit)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Not at once, as gunicorn has it: Ctrl-C is followed by the master's SIGQUIT, in the midst of it all."""
        self.handle_exit(sig, frame)

    def run(self) -> None:
        log.info("serving on %s", url(self.sockets[0], tls=self.app.tls is not None))
        self.cfg.set("graceful_timeout", GRACE_S)  # in this process; the master waits for longer
        super().run()
        self.app.unload()
        logging.shutdown()
        os._exit(0)  # Python would wait for the threads, and so for any client that sends nothing


class Master(Arbiter):  # type: ignore[misc]
    """Keeps one worker, never two: what gunicorn does on other signals is left out."""

    def __init__(self, app: Server, listener: socket.socket) -> None:
        super().__init__(app)
        self.LISTENERS = [listener]

    def handle_hup(self) -> None:
        """End: the terminal is gone."""
        self.handle_term()

    def handle_ttin(self) -> None: ...

    def handle_ttou(self) -> None: ...

    def handle_usr2(self) -> None: ...

    def reap_workers(self) -> None:
        """A worker that could not build the agent has said why; gunicorn would only add noise."""
        try:
            super().reap_workers()
        except HaltServer as halt:
            sys.exit(halt.exit_status)


class GunicornLog(Logger):  # type: ignore[misc]
    """Gunicorn's warnings go where everything else goes.  There is no access log."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.error_log.propagate = True
        if not log.isEnabledFor(logging.DEBUG):
            self.error_log.setLevel(logging.WARNING)
        self.error_log.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """What the agent has said itself is none; nor is a client that does not take its answer."""
    could_not_boot = isinstance(record.args, tuple) and record.args[-1:] == (Arbiter.WORKER_BOOT_ERROR,)
    gave_up = record.exc_info is not None and isinstance(record.exc_info[1], TimeoutError)
    return not (gave_up or (could_not_boot and "exited with code" in record.msg))
