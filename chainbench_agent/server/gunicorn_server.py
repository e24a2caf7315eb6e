"""Serves the agent with gunicorn, from code: a master that listens, and one worker that does everything.

One worker, because the BPF objects and the state of the run live in a process; it answers with threads.
The agent is built in the worker, after the fork, and closed there whatever signal ends it.
All modules are imported before the fork: sharing their memory saves 9 MB.
"""

from __future__ import annotations

import gc
import logging
import os
import ssl
import sys
import time
from collections.abc import Callable, Mapping

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from chainbench_agent.agent import Agent, OpenCollector, build_agent
from chainbench_agent.collector import open_collector
from chainbench_agent.errors import AgentError
from chainbench_agent.export.health import RESPONSES_CUT, Points
from chainbench_agent.export.series import Family
from chainbench_agent.logs.entries import log_to_stderr
from chainbench_agent.runs.active_run_record import ActiveRunRecord
from chainbench_agent.server.gunicorn_log import GunicornLog
from chainbench_agent.server.gunicorn_processes import Master, Worker
from chainbench_agent.server.listener import Listener, listener_for
from chainbench_agent.server.response_sender import CutAnswers
from chainbench_agent.server.systemd_notify import SystemdNotify
from chainbench_agent.settings import Settings
from chainbench_agent.web.app import create_app
from chainbench_agent.web.http_framing import LONGEST_HEAD

KILL_AFTER_S = 15
"""How long the master waits for the worker: GRACE_S, twice lifecycle.SETTLE_S, and closing collector and store."""

BUILD_S = 600
"""How long building the agent may take before it counts as hung; the compiler has a shorter limit."""

LOOP_S = 60
"""How long one turn of the worker's loop, normally a second, may take before it counts as hung."""

MEMORY = "/dev/shm"  # noqa: S108
"""Where the worker's heartbeat file is, touched every second: on a disk it would show in `biolatency`."""

log = logging.getLogger(__name__)


def serve(
    settings: Settings,
    open_collector: OpenCollector = open_collector,
    reload: Callable[[], Settings] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then exit with 0; with 3 if the agent cannot be built.

    `reload`: reads the settings again, when a service manager asks for it.

    Raises InputError when the address cannot be listened on, or a token or a certificate cannot be used.
    """
    log_to_stderr(settings.log_level)
    listener = listener_for(settings)
    with listener.open() as sock:
        master = Master(Server(settings, open_collector, listener, reload), sock)
        gc.freeze()  # what the worker inherits is not collected there, which would write to, and so copy, every page
        master.run()


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types; nor have those below
    """gunicorn's application: the agent and its HTTP interface."""

    def __init__(
        self,
        settings: Settings,
        open_collector: OpenCollector,
        listener: Listener,
        reload: Callable[[], Settings] | None = None,
    ) -> None:
        self.systemd = SystemdNotify()
        self.cut_answers = CutAnswers()
        self._listener = listener
        self._active_run_record = ActiveRunRecord()
        self._reload = reload
        self.turned_s = 0.0
        """When the worker's loop last turned, or the worker began to build the agent."""
        self._settings = settings
        self._open_collector = open_collector
        self._agent: Agent | None = None
        super().__init__()

    def load_config(self) -> None:
        options = {
            "workers": 1,
            "worker_class": Worker,
            "threads": 8,
            # A benchmark may starve the machine for a minute; that must not kill the worker and its run.
            "timeout": 0,
            "graceful_timeout": KILL_AFTER_S,
            # One request per connection: a shutdown waits for none, and no runner posts into one that is closing.
            "keepalive": 0,
            # Requests that wait for a thread; further ones wait in the kernel's queue.
            "worker_connections": 256,
            "certfile": self._settings.tls_cert and str(self._settings.tls_cert),  # only for `wsgi.url_scheme`
            "forwarded_allow_ips": "",
            "limit_request_line": 0,  # web/http_framing.py limits the head as a whole
            "limit_request_field_size": LONGEST_HEAD,
            "limit_request_fields": LONGEST_HEAD,
            "worker_tmp_dir": MEMORY if os.access(MEMORY, os.W_OK) else None,
            "control_socket_disable": True,
            "logger_class": GunicornLog,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Build the agent.  Called in the worker; if it fails, worker and master end."""
        self.turned_s = time.monotonic()
        self.systemd.watch(self.lives)
        try:
            self._agent = agent = build_agent(
                self._settings,
                self._open_collector,
                record=self._active_run_record,
                processes=_processes,
                counts=self._counts,
            )
        except AgentError as error:
            log.error("%s", error)  # noqa: TRY400 - a sentence for people
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        self.turned_s = time.monotonic()
        return create_app(
            agent.runs,
            agent.metrics,
            agent.default_selection,
            access=self._listener.access,
            ring=agent.collector.ring,
        )

    def _counts(self) -> Mapping[Family, Points]:
        """The worker's own counters, for /metrics."""
        return {RESPONSES_CUT: [((cause,), count) for cause, count in self.cut_answers.counts().items()]}

    @property
    def tls(self) -> ssl.SSLContext | None:
        return self._listener.tls

    def read_settings_again(self) -> None:
        """Read the settings for the next worker; invalid settings change nothing.  The listening socket stays."""
        try:
            new = self._reload() if self._reload else self._settings
            listener = listener_for(new)
        except AgentError as error:
            log.error("the settings stay as they were: %s", error)  # noqa: TRY400 - a sentence for people
            return
        if self._listener.protected and not listener.protected:
            log.error("the settings stay as they were: to take away the token needs a restart")
            return
        if listener.place != self._listener.place:
            log.warning("another host, port or socket group needs a restart")
        self._settings, self._listener = new, listener
        self.load_config()

    def lives(self) -> bool:
        """Whether the worker is alive: it builds the agent, or its loop turns and the lock of the runs is free."""
        if self._agent is None:
            return time.monotonic() - self.turned_s < BUILD_S
        return time.monotonic() - self.turned_s < LOOP_S and bool(self._agent.runs.status())

    def unload(self) -> None:
        """Finish the run that is on, and close the agent."""
        if self._agent:
            self._agent.close()


def _processes() -> dict[str, int]:
    """Role → pid, seen from the worker.  The compiler child has ended before the first scrape."""
    return {"master": os.getppid(), "worker": os.getpid()}
