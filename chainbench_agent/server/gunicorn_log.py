"""Gunicorn's own log messages, in the agent's log."""

from __future__ import annotations

import logging
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

log = logging.getLogger(__name__)


class GunicornLog(Logger):  # type: ignore[misc]
    """Sends gunicorn's warnings to the agent's log.  There is no access log."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.error_log.propagate = True
        if not log.isEnabledFor(logging.DEBUG):
            self.error_log.setLevel(logging.WARNING)
        self.error_log.addFilter(_adds_information)


def _adds_information(record: logging.LogRecord) -> bool:
    """False for what the agent has logged itself, and for a client that does not read its answer."""
    could_not_boot = isinstance(record.args, tuple) and record.args[-1:] == (Arbiter.WORKER_BOOT_ERROR,)
    gave_up = record.exc_info is not None and isinstance(record.exc_info[1], TimeoutError)
    return not (gave_up or (could_not_boot and "exited with code" in record.msg))
