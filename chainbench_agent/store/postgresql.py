"""Stores the runs of a fleet of agents in PostgreSQL, each under a machine name of its own."""

# ruff: noqa: PLC0415 - an agent that uses SQLite must not load this
from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from chainbench_agent.errors import InputError, StoreError

CONNECT_S = 2
"""How long to wait for a server that does not answer: `/start` and `/stop` wait as well."""

STATEMENT_MS = 5000
MIGRATION_LOCK = 0x636862656E6368
"""The advisory lock for the steps of schema.py: agents of a fleet start together."""


class Postgresql:
    """See database.Database."""

    kind: ClassVar[Literal["postgresql"]] = "postgresql"
    shared = True

    def __init__(self, text: str) -> None:
        try:
            self._url = make_url(text)
        except (ArgumentError, ValueError):  # its message would show a password
            raise InputError("store", "is not a URL; write it as postgresql://USER@HOST/DATABASE") from None
        if self._url.drivername not in {"postgresql", "postgresql+psycopg"}:
            raise InputError("store", "PostgreSQL is reached with psycopg: write postgresql://…")
        if importlib.util.find_spec("psycopg") is None:
            how = f"{sys.executable} -m pip install '.[postgresql]'"  # PyPI does not have the agent
            raise InputError("store", f"psycopg is missing; in the agent's checkout: {how}")
        self.location = self._url.render_as_string(hide_password=True)

    @property
    def insert(self) -> Any:
        from sqlalchemy.dialects.postgresql import insert

        return insert

    def open(self, patience_s: float) -> Engine:
        del patience_s
        options: dict[str, Any] = {
            "connect_timeout": CONNECT_S,
            "tcp_user_timeout": 1000 * CONNECT_S,
            "application_name": "chainbench-agent",
            "options": f"-c statement_timeout={STATEMENT_MS} -c lock_timeout={1000 * CONNECT_S}",
        }
        chosen = {name: value for name, value in options.items() if name not in self._url.query}
        engine = create_engine(
            self._url.set(drivername="postgresql+psycopg"),
            connect_args=chosen,
            hide_parameters=True,
            pool_pre_ping=True,  # the server may have been restarted
            pool_size=1,
            max_overflow=16,
        )
        event.listen(engine, "begin", _begin)
        return engine

    def opened(self) -> None:
        """Do nothing: a server has no files here."""

    def displaced(self) -> str:
        """Empty: a server looks after its own files."""
        return ""

    def let_go(self, engine: Engine) -> bool:
        engine.dispose()
        return True

    def is_corrupt(self, error: BaseException | None) -> bool:
        """False: a damaged server is for its operator to repair."""
        del error
        return False

    def why(self, error: BaseException | None) -> str:
        first = " ".join(str(error).split("\n", 1)[0].split())
        return f"{self.location}: {first}; see that this server runs and lets this agent in"

    def move_aside(self) -> Path:
        raise StoreError(f"{self.location} is a server's")

    def size(self) -> int | None:
        """None: only the server knows, and it has runs of other agents."""
        return None

    def close(self) -> None:
        """Hold nothing but the engine, so release nothing."""


def _begin(connection: Connection) -> None:
    match connection.get_execution_options().get("write"):
        case "lazy":  # surviving this process is enough: the next checkpoint comes in seconds
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
        case "migration":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
