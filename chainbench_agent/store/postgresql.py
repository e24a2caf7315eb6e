"""One PostgreSQL for a fleet of agents, each under a machine name of its own."""

# ruff: noqa: PLC0415 - who keeps runs in SQLite shall not pay for this
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
"""Whose holder takes the steps of schema.py: agents of a fleet start together."""


class Postgresql:
    """See database.Database."""

    kind: ClassVar[Literal["postgresql"]] = "postgresql"
    shared = True

    def __init__(self, text: str) -> None:
        try:
            self._url = make_url(text)
        except (ArgumentError, ValueError):  # its own words would show a password
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
        """Nothing is remembered of a server."""

    def displaced(self) -> str:
        """Never: a server's files are its own."""
        return ""

    def let_go(self, engine: Engine) -> bool:
        engine.dispose()
        return True

    def is_corrupt(self, error: BaseException | None) -> bool:
        """Never: what is wrong with a server is its operator's to mend."""
        del error
        return False

    def why(self, error: BaseException | None) -> str:
        first = " ".join(str(error).split("\n", 1)[0].split())
        return f"{self.location}: {first}; see that this server runs and lets this agent in"

    def move_aside(self) -> Path:
        raise StoreError(f"{self.location} is a server's")

    def size(self) -> int | None:
        """The server's to tell, and others' runs are in it."""
        return None

    def close(self) -> None:
        """Nothing is held beside the engine."""


def _begin(connection: Connection) -> None:
    match connection.get_execution_options().get("write"):
        case "lazy":  # it survives this process, and that is enough: the next one comes in seconds
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
        case "migration":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
