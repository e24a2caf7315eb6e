"""Makes the SQL statements over the table of runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Delete, Executable, Insert, Row, Select, case, delete, func, select

from chainbench_agent.evidence.model import Labels
from chainbench_agent.model.stored_run import Query, StoredRun, Summary
from chainbench_agent.store.base import Retention
from chainbench_agent.store.schema import RUNS

MakeInsert = Callable[..., Any]
"""The `insert` of the database's dialect, which can insert or update in one statement."""

SUMMARY = tuple(column for column in RUNS.c if column.name not in {"environment", "evidence"})
_NEVER_CHANGE = {"id", "machine", *Labels.model_fields}


def upsert(insert: MakeInsert, run: StoredRun) -> Executable:
    """Insert a run, or replace it; a running state replaces only a running state."""
    values = columns(run)
    statement = insert(RUNS).values(values)
    changes = {name: statement.excluded[name] for name in values if name not in _NEVER_CHANGE}
    where = RUNS.c.result == "running" if run.summary.result == "running" else None
    changed: Insert = statement.on_conflict_do_update(index_elements=[RUNS.c.id], set_=changes, where=where)
    return changed


def columns(run: StoredRun) -> dict[str, Any]:
    """A run as column → value."""
    printable = run.summary.failure.replace("\0", "").encode(errors="replace").decode()  # a file name may be anything
    return {**run.summary.flat(), "failure": printable, "environment": run.environment, "evidence": run.evidence}


def page(query: Query) -> Select[Any]:
    """The summaries that `query` asks for, newest first."""
    wanted = [RUNS.c[name] == value for name, value in query.labels.items()]
    wanted += [RUNS.c.result == query.result] if query.result else []
    wanted += [RUNS.c.id < query.before] if query.before else []
    return select(*SUMMARY).where(*wanted).order_by(RUNS.c.id.desc()).limit(query.limit)


def summary(row: Row[Any]) -> Summary:
    values = {column.name: getattr(row, column.name) for column in SUMMARY}
    return Summary(labels=Labels(**{name: values.pop(name) for name in Labels.model_fields}), **values)


def newest(machine: str) -> Select[Any]:
    """Ids and labels of the machine's runs that have evidence and did not fail, newest first."""
    labels = [RUNS.c[name] for name in Labels.model_fields]
    mine = (RUNS.c.machine == machine, RUNS.c.source != "", RUNS.c.result.in_(("finished", "interrupted")))
    return select(RUNS.c.id, *labels).where(*mine).order_by(RUNS.c.id.desc())


def beyond(retention: Retention, mine: Iterable[ColumnElement[bool]], now: datetime, spare: str = "") -> list[Delete]:
    """Statements that delete runs that are too many or too old.

    The run that is on stays; so does the run with the id `spare`, which counts as one that stays, whatever its time.
    """
    mine = tuple(mine)
    others = [RUNS.c.result != "running", RUNS.c.id != spare, *mine]
    excess = _ended(mine) - retention.runs
    too_many = case((excess > 0, excess), else_=0)  # SQLite takes a negative limit for none
    oldest = select(RUNS.c.id).where(*others).order_by(RUNS.c.id).limit(select(too_many).scalar_subquery())
    statements = [delete(RUNS).where(RUNS.c.id.in_(oldest))]
    if retention.days:
        too_old = now.astimezone(UTC) - timedelta(days=retention.days)
        statements.append(delete(RUNS).where(RUNS.c.started_at < too_old, *others))
    return statements


def how_many(mine: Iterable[ColumnElement[bool]]) -> Select[Any]:
    """The count of runs that have ended."""
    return select(_ended(tuple(mine)))


def _ended(mine: Iterable[ColumnElement[bool]]) -> ColumnElement[int]:
    """The count of all runs minus that of running ones: SQLite counts a whole table without reading its entries."""
    everything = select(func.count()).select_from(RUNS).where(*mine)
    return everything.scalar_subquery() - everything.where(RUNS.c.result == "running").scalar_subquery()


def loads(text: str) -> Any:
    """Parse JSON into objects that share equal strings: restored evidences are much alike."""
    return json.loads(text, object_pairs_hook=_interned)


def _interned(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    return {sys.intern(name): sys.intern(value) if type(value) is str else value for name, value in pairs}
