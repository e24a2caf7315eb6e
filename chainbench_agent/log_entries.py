"""Log entries that nobody can forge: whatever a client sends, an entry begins where the agent begins one."""

from __future__ import annotations

import logging

CONTINUED = "    "


class OneEntry(logging.Formatter):
    """Further lines of an entry are indented, and characters that do not print are written as escapes."""

    def format(self, record: logging.LogRecord) -> str:
        first, *others = super().format(record).splitlines() or [""]
        return "\n".join([_printable(first), *(CONTINUED + _printable(line) for line in others)])


def _printable(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
