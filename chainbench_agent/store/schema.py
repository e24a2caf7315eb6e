"""Defines the table of runs, and the steps that bring a database of any age to it.

A step is plain SQL that both databases take, and never changes once released: a new one is added at the end.
docs/decisions/0012-runs-are-stored.md says why this is all.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    DateTime,
    Dialect,
    Float,
    Integer,
    MetaData,
    Table,
    Text,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.types import TypeDecorator

from chainbench_agent.errors import StoreError
from chainbench_agent.model.stored_run import LABELS

FOUND_BY = (*LABELS, "result")
"""The columns that `GET /runs` filters by.  Each has an index that continues with the id, which sorts by time, and with
all the others: what two filters have in common is found without reading the rows, which are large."""

STEPS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE runs (
            id TEXT NOT NULL PRIMARY KEY,
            scenario TEXT NOT NULL,
            impl TEXT NOT NULL,
            variant TEXT NOT NULL,
            "commit" TEXT NOT NULL,
            dataset TEXT NOT NULL,
            machine TEXT NOT NULL,
            started_at TIMESTAMP WITH TIME ZONE NOT NULL,
            duration_ms DOUBLE PRECISION NOT NULL,
            ended_by TEXT NOT NULL,
            result TEXT NOT NULL,
            source TEXT NOT NULL,
            failure TEXT NOT NULL,
            environment JSON NOT NULL,
            evidence JSON
        )""",
        'CREATE INDEX runs_by_scenario ON runs (scenario, id, impl, variant, "commit", dataset, machine, result)',
        'CREATE INDEX runs_by_impl ON runs (impl, id, scenario, variant, "commit", dataset, machine, result)',
        'CREATE INDEX runs_by_variant ON runs (variant, id, scenario, impl, "commit", dataset, machine, result)',
        'CREATE INDEX runs_by_commit ON runs ("commit", id, scenario, impl, variant, dataset, machine, result)',
        'CREATE INDEX runs_by_dataset ON runs (dataset, id, scenario, impl, variant, "commit", machine, result)',
        'CREATE INDEX runs_by_machine ON runs (machine, id, scenario, impl, variant, "commit", dataset, result)',
        'CREATE INDEX runs_by_result ON runs (result, id, scenario, impl, variant, "commit", dataset, machine)',
        "CREATE INDEX runs_by_start ON runs (started_at)",
    ),
)

SCHEMA = Table("chainbench_schema", MetaData(), Column("version", Integer, nullable=False))
"""How many steps the database has taken, in one row."""


class Moment(TypeDecorator[datetime]):
    """A time in UTC; SQLite has no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


RUNS = Table(
    "runs",
    MetaData(),
    Column("id", Text, primary_key=True),
    *(Column(name, Text, nullable=False) for name in LABELS),
    Column("started_at", Moment, nullable=False),
    Column("duration_ms", Float, nullable=False),
    *(Column(name, Text, nullable=False) for name in ("ended_by", "result", "source", "failure")),
    Column("environment", JSON, nullable=False),
    Column("evidence", JSON(none_as_null=True)),  # last, so that listing runs does not read over it
)


def migrate(connection: Connection) -> None:
    """Take the steps that the database lacks, all or none, in the caller's transaction.

    StoreError if a newer agent has been here.
    """
    found = version(connection)
    if found > len(STEPS):
        raise StoreError(
            f"the store has schema {found} and this agent knows {len(STEPS)}: a newer agent has used it;"
            " run that version, or choose another with --store"
        )
    for statement in (statement for step in STEPS[found:] for statement in step):
        connection.exec_driver_sql(statement)
    if found < len(STEPS):
        connection.execute(update(SCHEMA).values(version=len(STEPS)))


def version(connection: Connection) -> int:
    """How many steps the database has taken."""
    if not inspect(connection).has_table(SCHEMA.name):  # IF NOT EXISTS would require the right to create
        SCHEMA.create(connection)
        connection.execute(insert(SCHEMA).values(version=0))
    return int(connection.execute(select(SCHEMA.c.version)).scalar_one())
