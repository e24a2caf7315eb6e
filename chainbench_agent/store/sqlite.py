"""A SQLite file, which is one agent's alone while that lives."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import ArgumentError

from chainbench_agent.errors import InputError, StoreError
from chainbench_agent.store.queries import loads

BUSY_S = 2.0
"""How long a write waits for another program that holds the database."""

CACHE_KIB = 512
JOURNAL_BYTES = 4 << 20
"""What the write-ahead log shrinks to when it is empty."""

CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
HINTS = {
    sqlite3.SQLITE_FULL: "make room on that disk",
    sqlite3.SQLITE_BUSY: "another program holds it; let that end",
    sqlite3.SQLITE_READONLY: "make it writable, or choose another place with --state-dir",
    sqlite3.SQLITE_CANTOPEN: "make its directory writable, or choose another place with --state-dir",
    sqlite3.SQLITE_IOERR: "see the kernel's log for what is wrong with that disk",
}
NO_DESCRIPTOR = {
    errno.EMFILE: "the agent has no descriptor left; if that lasts, raise its limit (LimitNOFILE=)",
    errno.ENFILE: "this machine has no descriptor left; if that lasts, raise its limit (sysctl fs.file-max)",
}
FILES = 3
"""What a connection opens: the database, its log, and the memory shared by those who use it."""

SYNCHRONOUS = {"migration": "FULL", "durable": "FULL", "lazy": "NORMAL"}
"""How a write is made safe.  In WAL mode FULL flushes at every commit, so that an answered `/stop` survives a power
failure; NORMAL leaves that to the kernel, which survives this process, and costs no benchmark a flush in its midst."""


class Sqlite:
    """See sql.Database."""

    kind: ClassVar[Literal["sqlite"]] = "sqlite"
    shared = False
    insert = staticmethod(insert)

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.location = str(self.path)
        self._lock: int | None = None

    @classmethod
    def from_url(cls, text: str) -> Sqlite:
        try:
            url = make_url(text)
        except ArgumentError:
            url = None
        if url is None or not url.database or url.database == ":memory:" or url.query:
            raise InputError("store", "a SQLite store is written as sqlite:///FILE, with a fourth / before a full path")
        return cls(Path(url.database))

    def open(self, patience_s: float) -> Engine:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._claim(patience_s)
        except OSError as error:
            hint = NO_DESCRIPTOR.get(
                error.errno or 0, "make it writable for this user, or choose another with --state-dir"
            )
            raise StoreError(f"cannot write to {self.path.parent}: {error.strerror}; {hint}") from None
        engine = create_engine(
            URL.create("sqlite", database=str(self.path)),
            connect_args={"timeout": BUSY_S},
            hide_parameters=True,
            json_deserializer=loads,
            pool_size=1,  # one stays open: SQLite empties its log, with flushes, when the last one closes
            max_overflow=16,
        )
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", _begin)
        return engine

    def is_corrupt(self, error: BaseException | None) -> bool:
        return _code(error) in CORRUPT

    def why(self, error: BaseException | None) -> str:
        return f"{self.path}: {error}; {_no_descriptor(error) or HINTS.get(_code(error), 'see the log')}"

    def move_aside(self) -> Path:
        """Rename the database, and what SQLite keeps beside it; where it is now.  OSError if that cannot be."""
        moved = self.path.with_name(f"{self.path.name}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
        self.path.rename(moved)
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(f"{moved}{suffix}")
        return moved

    def size(self) -> int | None:
        files = (self.path, Path(f"{self.path}-wal"))
        sizes = []
        for file in files:
            with suppress(OSError):
                sizes.append(file.stat().st_size)
        return sum(sizes) if sizes else None

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _claim(self, patience_s: float) -> None:
        """Hold the lock file.  A worker that just died, or still ends, may take a moment to let go of it."""
        if self._lock is not None:
            return
        lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(lock)
                    raise StoreError(
                        f"{self.path} is another agent's; end that one, or choose another place with --state-dir"
                    ) from None
                time.sleep(0.05)
            else:
                self._lock = lock
                return


def _set_up(connection: sqlite3.Connection, record: Any) -> None:
    del record
    connection.isolation_level = None  # _begin begins; Python's module would, but not before a CREATE TABLE
    for pragma in ("journal_mode = WAL", f"cache_size = -{CACHE_KIB}", f"journal_size_limit = {JOURNAL_BYTES}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("write")
    if write:
        connection.exec_driver_sql(f"PRAGMA synchronous = {SYNCHRONOUS[write]}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")  # a write waits for its turn at once


def _code(error: BaseException | None) -> int:
    """SQLite's primary result code; the bytes above it say more than we use."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _no_descriptor(error: BaseException | None) -> str:
    """What to do if it failed for want of a descriptor, else nothing.

    SQLite does not say why it could not open a file: whether those of a connection can be opened is tried.
    """
    if isinstance(error, OSError):
        return NO_DESCRIPTOR.get(error.errno or 0, "")
    if _code(error) != sqlite3.SQLITE_CANTOPEN:
        return ""
    opened: list[int] = []
    try:
        opened.extend(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(FILES))
    except OSError as why:
        return NO_DESCRIPTOR.get(why.errno or 0, "")
    finally:
        for fd in opened:
            os.close(fd)
    return ""
