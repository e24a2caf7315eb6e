"""Serves the agent with gunicorn, from code: a master that listens, and one worker that does everything.

One worker, because the BPF objects and the state of the run live in a process; it answers with threads.
The agent is built in the worker, after the fork, and taken down there whatever signal ends it.
All modules are imported before the fork: what the two processes share saves 9 MB.
"""

from __future__ import annotations

import gc
import logging
import os
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from chainbench_agent.collector.base import Collector
from chainbench_agent.errors import AgentError
from chainbench_agent.export.health import LOG_DROPPED, RESPONSES_CUT, AgentRegistry, Points
from chainbench_agent.export.prometheus import Exporter
from chainbench_agent.export.series import Family
from chainbench_agent.host.environment import VERSION, environment
from chainbench_agent.logs.entries import log_to_stderr
from chainbench_agent.logs.writer import log_status
from chainbench_agent.probes import CATALOG
from chainbench_agent.runs.active_run_record import Slate
from chainbench_agent.runs.archive import Archive
from chainbench_agent.runs.lifecycle import Runs
from chainbench_agent.server.gunicorn_log import GunicornLog
from chainbench_agent.server.gunicorn_processes import Master, Worker
from chainbench_agent.server.listener import Entrance, entrance_for
from chainbench_agent.server.response_sender import CutAnswers
from chainbench_agent.server.systemd_notify import Supervisor
from chainbench_agent.settings import Settings
from chainbench_agent.store import open_store
from chainbench_agent.store.base import Store
from chainbench_agent.web.app import create_app
from chainbench_agent.web.http_framing import LONGEST_HEAD

OpenCollector = Callable[[Settings], Collector]

KILL_AFTER_S = 15
"""How long the master waits for it: GRACE_S, twice runs.SETTLE_S, the collector's last words, and the store's."""

BUILD_S = 600
"""How long building the agent may take before it counts as hung; the compiler itself is given up earlier."""

LOOP_S = 60
"""How long the worker's loop, which turns every second, may take for one before it counts as hung."""

MEMORY = "/dev/shm"  # noqa: S108
"""Where the worker has the file that it touches every second: on a disk that would be seen in `biolatency`."""

log = logging.getLogger(__name__)


def serve(settings: Settings, open_collector: OpenCollector, reload: Callable[[], Settings] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then exit with 0; with 3 if the agent cannot be built.

    `reload`: the settings anew, when a service manager asks for it.

    Raises InputError when the address cannot be listened on, or a token or a certificate cannot be used.
    """
    log_to_stderr(settings.log_level)
    entrance = entrance_for(settings)
    with entrance.open() as listener:
        master = Master(Server(settings, open_collector, entrance, reload), listener)
        gc.freeze()  # what the worker inherits is not collected there, which would write to, and so copy, every page
        master.run()


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types; nor have those below
    """The agent, as gunicorn's application."""

    def __init__(
        self,
        settings: Settings,
        open_collector: OpenCollector,
        entrance: Entrance,
        reload: Callable[[], Settings] | None = None,
    ) -> None:
        self.supervisor = Supervisor()
        self.cut_answers = CutAnswers()
        self._entrance = entrance
        self._slate = Slate()
        self._reload = reload
        self.turned_s = 0.0
        """When the worker's loop last turned, or the worker began to build the agent."""
        self._settings = settings
        self._open_collector = open_collector
        self._collector: Collector | None = None
        self._store: Store | None = None
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
            "limit_request_line": 0,  # web/http_framing.py limits the whole head, and nothing in it by itself
            "limit_request_field_size": LONGEST_HEAD,
            "limit_request_fields": LONGEST_HEAD,
            "worker_tmp_dir": MEMORY if os.access(MEMORY, os.W_OK) else None,
            "control_socket_disable": True,
            "logger_class": GunicornLog,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Build the agent.  Called in the worker, which ends if this fails, and the master with it."""
        settings, self.turned_s = self._settings, time.monotonic()
        self.supervisor.watch(self.lives)
        try:
            self._store = open_store(settings)
            self._collector = self._open_collector(settings)
        except AgentError as error:
            log.error("%s", error)  # noqa: TRY400 - a sentence for people
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        self.turned_s = time.monotonic()
        found = self._collector.status()
        of_a_run = partial(environment, found.details)
        archive = Archive(self._store, of_a_run, settings.checkpoint_s, settings.max_kept_label_sets)
        archive.take_over(self._slate)
        self._runs = runs = Runs(self._collector, settings.machine, archive=archive)
        registry = AgentRegistry(VERSION, found.backend, found.details, _processes, self._counts)
        exporter = Exporter(CATALOG, registry)
        return create_app(
            runs,
            partial(exporter.render_parts, runs),
            settings.sample_interval,
            settings.run_probes,
            access=self._entrance.access,
            ring=self._collector.ring,
        )

    def _counts(self) -> Mapping[Family, Points]:
        """What the worker counts of itself, for /metrics."""
        return {
            LOG_DROPPED: [((), log_status().dropped)],
            RESPONSES_CUT: [((cause,), count) for cause, count in self.cut_answers.counts().items()],
        }

    @property
    def tls(self) -> ssl.SSLContext | None:
        return self._entrance.tls

    def read_settings_again(self) -> None:
        """For the next worker; those that are wrong change nothing.  The socket stays the one that listens."""
        try:
            new = self._reload() if self._reload else self._settings
            entrance = entrance_for(new)
        except AgentError as error:
            log.error("the settings stay as they were: %s", error)  # noqa: TRY400 - a sentence for people
            return
        if self._entrance.protected and not entrance.protected:
            log.error("the settings stay as they were: to take away the token needs a restart")
            return
        if entrance.place != self._entrance.place:
            log.warning("another host, port or socket group needs a restart")
        self._settings, self._entrance = new, entrance
        self.load_config()

    def lives(self) -> bool:
        """Whether the worker builds the agent, or its loop turns and no thread holds the lock of the runs for ever."""
        if self._runs is None:
            return time.monotonic() - self.turned_s < BUILD_S
        return time.monotonic() - self.turned_s < LOOP_S and bool(self._runs.status())

    def unload(self) -> None:
        """Finish the run that is on, and give everything back."""
        if self._runs:
            self._runs.shutdown()
        if self._collector:
            self._collector.close()
        if self._store:
            self._store.close()


def _processes() -> dict[str, int]:
    """Role → pid, as the worker knows them.  The compiler child has ended before anybody can ask."""
    return {"master": os.getppid(), "worker": os.getpid()}
