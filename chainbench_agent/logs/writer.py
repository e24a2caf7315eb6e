"""Writes the log to stderr from a thread of its own: a reader that hangs holds up nothing that logs.

A pipe that nobody reads, a terminal stopped with Ctrl-S and a log driver that hangs all block write(2), for ever.
Entries go through a bounded queue; what finds no room in it, or cannot be written, is dropped and counted.
"""

from __future__ import annotations

import io
import logging
import os
import select
import threading
import weakref
from collections import deque
from dataclasses import dataclass

MOST_BYTES = 1 << 20
"""How much waits in memory for a reader.  One entry, however long, always may."""

PATIENCE_S = 0.1
"""How long whoever logs waits for the entry to be written, so that a log is complete when the answer is sent.

Only while the writer makes progress: once this time was not enough, nobody waits until something is written again.
"""

FLUSH_S = 1.0
"""How long the end of a process waits for the entries that were not written yet."""

NOBODY_READS = "stderr takes nothing more: whoever reads it has stopped reading"
CLOSED = "stderr was closed when the agent started"
REMEDY = "read the agent's stderr, or send it to a file with room"


@dataclass(frozen=True, slots=True)
class LogStatus:
    """How many records of this process were dropped; `reason`: why the last of them was, empty if none was."""

    dropped: int = 0
    reason: str = ""


class LogWriter(logging.Handler):
    """A handler that never blocks for long.  Used from any number of threads; a forked child has an empty queue.

    `fd`: where entries go; None drops them all, because stderr was closed.
    """

    def __init__(self, fd: int | None) -> None:
        super().__init__()
        self._fd = fd
        self._dropped = 0
        self._reason = ""
        self._begin()
        _writers.add(self)

    def _begin(self) -> None:
        self._changed = threading.Condition()  # guards all that follows
        self._waiting: deque[tuple[bytes, int]] = deque()  # entry, and how many drops it reports
        self._bytes = 0
        self._accepted = self._done = 0
        self._unreported = 0
        self._stalled = False
        self._thread: threading.Thread | None = None

    @property
    def status(self) -> LogStatus:
        return LogStatus(self._dropped, self._reason)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - logging's own rule: a record that cannot be formatted stops nobody
            self.handleError(record)
        else:
            self.put(f"{text}\n".encode(errors="backslashreplace"))

    def put(self, entry: bytes) -> None:
        """Queue whole lines, and wait for a moment until they are written; drop them where there is no room."""
        with self._changed:
            if self._fd is None:
                self._drop(CLOSED)
            elif self._waiting and self._bytes + len(entry) > MOST_BYTES:
                self._drop(NOBODY_READS)
            else:
                self._report_drops()
                self._accept(entry)
                mine = self._accepted
                if not self._stalled:
                    self._stalled = not self._changed.wait_for(lambda: self._done >= mine, PATIENCE_S)

    def flush(self) -> None:
        """Wait until all is written; not for long, and for a shorter time if nobody reads."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, PATIENCE_S if self._stalled else FLUSH_S)

    def _accept(self, entry: bytes, reports: int = 0) -> None:
        self._waiting.append((entry, reports))
        self._bytes += len(entry)
        self._accepted += 1
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _drop(self, reason: str) -> None:
        self._dropped += 1
        self._unreported += 1
        self._reason = reason

    def _report_drops(self) -> None:
        """Say in the log itself how many entries are missing at this place."""
        if reports := self._unreported:
            self._unreported = 0
            text = f"{reports} log records were dropped: {self._reason}"
            record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
            self._accept(f"{self.format(record)}\n".encode(errors="backslashreplace"), reports)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                entry, reports = self._waiting[0]
            why_not = self._write(entry)
            with self._changed:
                self._waiting.popleft()
                self._bytes -= len(entry)
                self._done += 1
                self._stalled = False
                if not why_not and not self._waiting:
                    self._report_drops()
                elif why_not and reports:
                    self._unreported += reports
                elif why_not:
                    self._drop(why_not)
                self._changed.notify_all()

    def _write(self, entry: bytes) -> str:
        """Why it could not be written; empty if it was."""
        left = memoryview(entry)
        while left and self._fd is not None:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:  # whoever shares the descriptor has made it non-blocking
                _wait_until_writable(self._fd)
            except OSError as error:
                return f"stderr cannot be written: {error.strerror}"
        return ""


class LineStream(io.TextIOBase):
    """Takes the place of sys.stderr: what Python itself prints there (warnings, tracebacks of threads) cannot block.

    Each thread's text is passed on in whole lines.
    """

    def __init__(self, writer: LogWriter, fd: int) -> None:
        self._writer = writer
        self._number = fd
        self._begun = threading.local()

    def write(self, text: str) -> int:
        *lines, rest = (getattr(self._begun, "text", "") + text).split("\n")
        self._begun.text = rest
        if lines:
            self._writer.put("".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))
        return len(text)

    def flush(self) -> None:
        if rest := getattr(self._begun, "text", ""):
            self._begun.text = ""
            self._writer.put(rest.encode(errors="backslashreplace"))

    def fileno(self) -> int:
        return self._number

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._number)


_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()


def log_status() -> LogStatus:
    """The status of the writer at work in this process."""
    found = [writer.status for writer in _writers if writer in logging.getLogger().handlers]
    return found[0] if found else LogStatus()


def _begin_in_child() -> None:
    """The parent's thread is not here, and what waits is the parent's to write."""
    for writer in _writers:
        writer._begin()  # noqa: SLF001 - of this file


os.register_at_fork(after_in_child=_begin_in_child)


def _wait_until_writable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll(1000)
