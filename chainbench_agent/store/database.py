"""Defines what the store needs of a database; sqlite.py and postgresql.py implement it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from sqlalchemy import Engine

from chainbench_agent.errors import StoreError
from chainbench_agent.store.queries import MakeInsert

Write = Literal["", "lazy", "durable", "migration"]
"""How safe a transaction must be: it only reads, survives this process, or survives a power failure."""


class Database(Protocol):
    """The differences between SQLite and PostgreSQL.  `shared`: it has runs of other agents too."""

    @property
    def kind(self) -> Literal["sqlite", "postgresql"]: ...
    @property
    def shared(self) -> bool: ...
    @property
    def location(self) -> str:
        """Where the database is, for people; without a password."""

    @property
    def insert(self) -> MakeInsert: ...

    def open(self, patience_s: float) -> Engine:
        """An engine whose transactions follow the execution option `write`.  StoreError if it cannot be opened."""

    def opened(self) -> None:
        """Remember which files the engine has open."""

    def displaced(self) -> str:
        """A sentence if these files were removed or replaced; else empty."""

    def let_go(self, engine: Engine) -> bool:
        """Close an engine whose files were displaced; whether the next engine finds their runs."""

    def is_corrupt(self, error: BaseException | None) -> bool: ...

    def why(self, error: BaseException | None) -> str:
        """The meaning of the driver's error, and the remedy."""

    def move_aside(self) -> Path: ...

    def size(self) -> int | None:
        """Bytes on disk, including the write-ahead log; None if this machine cannot know."""

    def close(self) -> None: ...


class CorruptError(StoreError):
    """The file is not a database, or is damaged.  `engine` is the one that found out."""

    def __init__(self, sentence: str, engine: Engine | None) -> None:
        super().__init__(sentence)
        self.engine = engine
