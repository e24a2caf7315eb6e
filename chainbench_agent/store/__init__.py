"""Where runs are kept.  What a store is: base.py; both databases: sql.py; how their tables came to be: schema.py.

SQLAlchemy is imported where a database is opened, and that is in the worker: the master needs none of its 13 MB.
"""

# ruff: noqa: PLC0415 - see above
from __future__ import annotations

from chainbench_agent.errors import InputError
from chainbench_agent.settings import Settings
from chainbench_agent.store.base import NoStore, Retention, Store

SQLITE_FILE = "runs.sqlite3"


def open_store(settings: Settings) -> Store:
    """What `settings.store` names.  InputError for what is no store, or one whose driver is not installed.

    A database that cannot be used now is no error: the store's status says why, and each call tries again.
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
