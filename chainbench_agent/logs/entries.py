"""Log entries that a client cannot forge: text from a request never begins a new entry."""

from __future__ import annotations

import logging
import os
import sys

from chainbench_agent.logs.writer import LineStream, LogWriter

CONTINUATION = "    "


def log_to_stderr(level: str) -> None:
    """Sends the log, and what Python itself prints to stderr, to stderr through a LogWriter, which does not block."""
    occupy_closed_descriptors()
    fd = sys.stderr.fileno() if sys.stderr else None
    writer = LogWriter(fd)
    writer.setFormatter(EntryFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(handlers=[writer], level=level.upper())
    sys.stderr = LineStream(writer, 2 if fd is None else fd)


def occupy_closed_descriptors() -> None:
    """Opens /dev/null for stdin, stdout and stderr where they are closed.

    Otherwise the next file that is opened gets that number, and a library that prints to stderr writes into the file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number, which is this one


class EntryFormatter(logging.Formatter):
    """Indents the further lines of an entry, and writes characters that do not print as escapes."""

    def format(self, record: logging.LogRecord) -> str:
        first, *others = super().format(record).splitlines() or [""]
        return "\n".join([_printable(first), *(CONTINUATION + _printable(line) for line in others)])


def _printable(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
