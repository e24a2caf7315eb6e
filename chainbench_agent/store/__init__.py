"""Stores runs.  base.py has the interface, sql.py the store over both databases, schema.py their tables.

SQLAlchemy is imported where a database is opened, which is in the worker: the master does not need its 12 MB.
"""

# ruff: noqa: PLC0415 - see above
from __future__ import annotations

from chainbench_agent.errors import InputError
from chainbench_agent.settings import Settings
from chainbench_agent.store.base import NoStore, Retention, Store

SQLITE_FILE = "runs.sqlite3"


def open_store(settings: Settings) -> Store:
    """The store that `settings.store` names.  InputError if it names none, or its driver is not installed.

    A database that cannot be used now is no error: the store's status has the reason, and each call tries again.
    """
    if settings.store == "none":
        return NoStore()
    from chainbench_agent.store.postgresql import Postgresql
    from chainbench_agent.store.sql import SqlStore
    from chainbench_agent.store.sqlite import Sqlite

    name = "sqlite" if settings.store == "sqlite" else settings.store.partition(":")[0].partition("+")[0]
    match name:
        case "sqlite" if settings.store == "sqlite":
            database: Sqlite | Postgresql = Sqlite(settings.state_dir / SQLITE_FILE)
        case "sqlite":
            database = Sqlite.from_url(settings.store)
        case "postgresql":
            database = Postgresql(settings.store)
        case _:  # not repeated: a URL may hold a password
            raise InputError("store", "is neither sqlite, sqlite:///FILE, postgresql://…, nor none")
    store = SqlStore(database, settings.machine, Retention(settings.keep_runs, settings.keep_days))
    store.open()
    return store
