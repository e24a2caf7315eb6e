"""What a database has to offer to the store; sqlite.py and postgresql.py are the two that do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from sqlalchemy import Engine

from chainbench_agent.errors import StoreError
from chainbench_agent.store.queries import MakeInsert

Write = Literal["", "lazy", "durable", "migration"]
"""How safe a transaction is: it only reads, survives this process, or survives a power failure."""


class Database(Protocol):
    """What differs between SQLite and PostgreSQL.  `shared`: other agents' runs are in there as well."""

    @property
    def kind(self) -> Literal["sqlite", "postgresql"]: ...
    @property
    def shared(self) -> bool: ...
    @property
    def location(self) -> str:
        """For people; without a password."""

    @property
    def insert(self) -> MakeInsert: ...

    def open(self, patience_s: float) -> Engine:
        """An engine whose transactions heed the execution option `write`; StoreError if it cannot be."""

    def opened(self) -> None:
        """Remember which files those are that the engine has open."""

    def displaced(self) -> str:
        """That these files were removed or replaced; empty if they were not."""

    def let_go(self, engine: Engine) -> bool:
        """Close the engine whose files were displaced; whether their runs are found where it is opened next."""

    def is_corrupt(self, error: BaseException | None) -> bool: ...

    def why(self, error: BaseException | None) -> str:
        """What the driver's error means, and what would help."""

    def move_aside(self) -> Path: ...

    def size(self) -> int | None:
        """In bytes, with what is not yet in its place; None where that is not this machine's to tell."""

    def close(self) -> None: ...


class CorruptError(StoreError):
    """What is in the file is no database, or no longer one.  `engine` is the one that found it so."""

    def __init__(self, sentence: str, engine: Engine | None) -> None:
        super().__init__(sentence)
        self.engine = engine
