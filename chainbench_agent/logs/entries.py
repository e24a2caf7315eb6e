"""Log entries that nobody can forge: whatever a client sends, an entry begins where the agent begins one."""

from __future__ import annotations

import logging
import os
import sys

from chainbench_agent.logs.writer import LineStream, LogWriter

CONTINUED = "    "


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
