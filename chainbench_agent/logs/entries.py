"""Log entries that nobody can forge: whatever a client sends, an entry begins where the agent begins one."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from chainbench_agent.logs.writer import LineStream, LogWriter

CONTINUED = "    "

log = logging.getLogger(__name__)


def log_to_stderr(level: str) -> None:
    """Send the log, and what Python itself prints to stderr, there by a writer that blocks nobody."""
    occupy_closed_descriptors()
    fd = sys.stderr.fileno() if sys.stderr else None
    writer = LogWriter(fd)
    writer.setFormatter(EntryFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(handlers=[writer], level=level.upper())
    sys.stderr = LineStream(writer, 2 if fd is None else fd)


def occupy_closed_descriptors() -> None:
    """Open /dev/null where stdin, stdout or stderr is closed.

    Otherwise the next file that is opened gets the number, and a library that prints to stderr writes into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number, which is this one


class EntryFormatter(logging.Formatter):
    """Further lines of an entry are indented, and characters that do not print are written as escapes."""

    def format(self, record: logging.LogRecord) -> str:
        first, *others = super().format(record).splitlines() or [""]
        return "\n".join([_printable(first), *(CONTINUED + _printable(line) for line in others)])


def _printable(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


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
