"""Writes the log to stderr in a thread of its own, so that a reader that hangs does not stop the agent.

A pipe that nobody reads, a terminal stopped with Ctrl-S and a log driver that hangs all block write(2) forever.
Entries go through a bounded queue.  An entry that does not fit into it, or cannot be written, is dropped and counted.
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
"""How many bytes may wait in memory.  A single entry may, however long it is."""

PATIENCE_S = 0.1
"""How long a call that logs waits until its entry is written, so that the log is complete when a response is sent.

Once this time was not enough, no call waits until something is written again.
"""

FLUSH_S = 1.0
"""How long a process that ends waits until the remaining entries are written."""

NOBODY_READS = "stderr takes nothing more: whoever reads it has stopped reading"
CLOSED = "stderr was closed when the agent started"
REMEDY = "read the agent's stderr, or send it to a file with room"


@dataclass(frozen=True, slots=True)
class LogStatus:
    """How many records this process has dropped, and the `reason` for the last one; empty if it dropped nothing."""

    dropped: int = 0
    reason: str = ""


class LogWriter(logging.Handler):
    """A logging handler that never blocks for long, for any number of threads.  A forked child has an empty queue.

    Entries go to `fd`; None drops them all, because stderr was closed.
    """

    def __init__(self, fd: int | None) -> None:
        super().__init__()
        self._fd = fd
        self._dropped = 0
        self._reason = ""
        self._reset()
        _writers.add(self)

    def _reset(self) -> None:
        self._changed = threading.Condition()  # guards the attributes below
        self._waiting: deque[tuple[bytes, int]] = deque()  # an entry, and the number of drops that it reports
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
        """Queues whole lines, and waits for a moment until they are written; drops them if there is no room."""
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
        """Waits until everything is written; at most FLUSH_S, or PATIENCE_S if nobody reads."""
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
        """Writes into the log itself how many entries are missing here."""
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
            failure = self._write(entry)
            with self._changed:
                self._waiting.popleft()
                self._bytes -= len(entry)
                self._done += 1
                self._stalled = False
                if not failure and not self._waiting:
                    self._report_drops()
                elif failure and reports:
                    self._unreported += reports
                elif failure:
                    self._drop(failure)
                self._changed.notify_all()

    def _write(self, entry: bytes) -> str:
        """Returns why the entry could not be written; empty if it was."""
        left = memoryview(entry)
        while left and self._fd is not None:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:  # another process that shares the descriptor has made it non-blocking
                _wait_until_writable(self._fd)
            except OSError as error:
                return f"stderr cannot be written: {error.strerror}"
        return ""


class LineStream(io.TextIOBase):
    """Replaces sys.stderr, so that what Python itself prints there (warnings, tracebacks of threads) cannot block.

    It passes on each thread's text in whole lines.
    """

    def __init__(self, writer: LogWriter, fd: int) -> None:
        self._writer = writer
        self._number = fd
        self._partial = threading.local()

    def write(self, text: str) -> int:
        *lines, rest = (getattr(self._partial, "text", "") + text).split("\n")
        self._partial.text = rest
        if lines:
            self._writer.put("".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))
        return len(text)

    def flush(self) -> None:
        if rest := getattr(self._partial, "text", ""):
            self._partial.text = ""
            self._writer.put(rest.encode(errors="backslashreplace"))

    def fileno(self) -> int:
        return self._number

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._number)


_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()


def log_status() -> LogStatus:
    """The status of the LogWriter that this process logs to."""
    found = [writer.status for writer in _writers if writer in logging.getLogger().handlers]
    return found[0] if found else LogStatus()


def _reset_in_child() -> None:
    """Empties the queue in a forked child: the thread is the parent's, and the parent writes what waits."""
    for writer in _writers:
        writer._reset()  # noqa: SLF001 - in this file


os.register_at_fork(after_in_child=_reset_in_child)


def _wait_until_writable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll(1000)
