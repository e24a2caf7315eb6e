"""Stores runs in a SQLite file that only one agent uses at a time."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from chainbench_agent.errors import InputError, StoreError
from chainbench_agent.store.open_files import OpenFiles, has_shared_maps
from chainbench_agent.store.queries import loads

BUSY_S = 2.0
"""How long a write waits for another program that holds the database."""

CACHE_KIB = 512
JOURNAL_BYTES = 4 << 20
"""The size to which the empty write-ahead log is cut."""

CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
HINTS = {
    sqlite3.SQLITE_FULL: "make room on that disk",
    sqlite3.SQLITE_BUSY: "another program uses it; end that program",
    sqlite3.SQLITE_READONLY: "make it writable, or choose another place with --state-dir",
    sqlite3.SQLITE_CANTOPEN: "make its directory writable, or choose another place with --state-dir",
    sqlite3.SQLITE_IOERR: "see the kernel's log for what is wrong with that disk",
}
NO_DESCRIPTOR = {
    errno.EMFILE: "the agent has no descriptor left; if that lasts, raise its limit (LimitNOFILE=)",
    errno.ENFILE: "this machine has no descriptor left; if that lasts, raise its limit (sysctl fs.file-max)",
}
FILES = 3
"""Files that a connection opens: the database, its log, and the shared memory of its users."""

SYNCHRONOUS = {"migration": "FULL", "durable": "FULL", "lazy": "NORMAL"}
"""How safe a write is.  In WAL mode FULL flushes at every commit, so that an answered `/stop` survives a power failure;
NORMAL leaves flushing to the kernel, which survives this process and does not disturb a running benchmark.
Without WAL both flush."""

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}

log = logging.getLogger(__name__)


class Sqlite:
    """See database.Database."""

    kind: ClassVar[Literal["sqlite"]] = "sqlite"
    shared = False
    insert = staticmethod(insert)

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.location = str(self.path)
        self._lock: int | None = None
        self._files = OpenFiles(self.path)
        self._journal = ""

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
            self._journal = journal = self._journal or self._journal_mode()
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
            pool_size=1,  # one stays open: when the last one closes, SQLite empties its log, with flushes
            max_overflow=16,
        )
        event.listen(engine, "connect", partial(_set_up, journal))
        event.listen(engine, "begin", _begin)
        return engine

    def opened(self) -> None:
        self._files.remember()

    def displaced(self) -> str:
        gone = self._files.displaced()
        for suffix in ("", "-wal", "-shm", ".lock"):
            if suffix in gone:
                return f"{self.path}{suffix} was {gone[suffix]} under the agent"
        return ""

    def let_go(self, engine: Engine) -> bool:
        """Close the displaced files, so that those at the path can be opened; whether these have the same runs."""
        gone = self._files.displaced()
        kept = "" not in gone
        if kept:
            with suppress(SQLAlchemyError), engine.connect() as connection:  # the log was unlinked
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        others = [Path(f"{self.path}{suffix}") for suffix in ("-wal", "-shm") if gone.get(suffix) == "replaced"]
        aside = [(file, Path(f"{file}.kept")) for file in others if not kept]
        for file, name in aside:  # when SQLite closes, it removes any file with the name of its log
            file.rename(name)
        engine.dispose()
        if not kept:
            self._files.remove_own_log()
        for file, name in aside:
            name.rename(file)
        self._files.forget()
        self._journal = ""
        if ".lock" in gone:
            self.close()
        return kept

    def is_corrupt(self, error: BaseException | None) -> bool:
        return _code(error) in CORRUPT

    def why(self, error: BaseException | None) -> str:
        return f"{self.path}: {error}; {_no_descriptor(error) or HINTS.get(_code(error), 'see the log')}"

    def move_aside(self) -> Path:
        """Rename the database and the files that belong to it; the answer is its new path.  OSError if that fails."""
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
        """Hold the lock file.  A worker that has just died, or is ending, may take a moment to release it."""
        if self._lock is not None:
            return
        lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
                    os.close(lock)
                    raise StoreError(
                        f"{self.path} belongs to another agent; end that one, or choose another place with --state-dir"
                        f" (it is held by process {holder})"
                    ) from None
                time.sleep(0.05)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    os.close(lock)
                    raise
                log.warning("%s: this file system has no locks; see that no other agent uses it", self.path)
                self._lock = lock
                return
            else:
                self._lock = lock
                with suppress(OSError):  # the disk is full; the pid is only for people
                    os.ftruncate(lock, 0)
                    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
                return

    def _journal_mode(self) -> str:
        """WAL if its shared memory can be mapped; else TRUNCATE, to which a database in WAL mode is converted."""
        if has_shared_maps(self.path):
            return "WAL"
        log.warning("%s: this file system has no shared memory maps; every checkpoint of a run flushes", self.path)
        if self.path.exists():
            with suppress(sqlite3.Error), closing(sqlite3.connect(self.path, timeout=BUSY_S)) as connection:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # reads a log without shared memory
                connection.execute("PRAGMA journal_mode = TRUNCATE")
        return "TRUNCATE"


def _set_up(journal: str, connection: sqlite3.Connection, record: Any) -> None:
    del record
    connection.isolation_level = (
        None  # _begin starts transactions; Python's module does not start one before a CREATE TABLE
    )
    for pragma in (f"journal_mode = {journal}", f"cache_size = -{CACHE_KIB}", f"journal_size_limit = {JOURNAL_BYTES}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("write")
    if write:
        connection.exec_driver_sql(f"PRAGMA synchronous = {SYNCHRONOUS[write]}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")  # a write takes its turn at the start


def _code(error: BaseException | None) -> int:
    """SQLite's primary result code, without the extended code above it."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _no_descriptor(error: BaseException | None) -> str:
    """The remedy if no descriptor was left, else empty.

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
