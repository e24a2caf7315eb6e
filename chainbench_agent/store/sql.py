"""Stores runs in a database, and recovers when the database fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Connection, Delete, Engine, delete, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from chainbench_agent.errors import StoreError
from chainbench_agent.evidence.model import Evidence
from chainbench_agent.model.status import StoreStatus
from chainbench_agent.model.stored_run import Query, StoredRun, Summary
from chainbench_agent.store.base import FROM_CHECKPOINT, Retention
from chainbench_agent.store.database import CorruptError, Database, Write
from chainbench_agent.store.queries import beyond, how_many, newest, page, summary, upsert
from chainbench_agent.store.schema import RUNS, migrate

OPEN_PATIENCE_S = 3.0
"""How long an agent that starts waits for the agent before it to release the database."""

MOST_LOOKED_AT = 10_000
"""Among how many of the latest runs the label sets are searched."""

DIED = f"the agent died in this run; {FROM_CHECKPOINT}"

T = TypeVar("T")

log = logging.getLogger(__name__)


class SqlStore:
    """See base.Store.  Writes take turns; none waits for a reader."""

    def __init__(self, database: Database, machine: str, retention: Retention) -> None:
        self._database = database
        self._machine = machine
        self._retention = retention
        self._recovered: Sequence[Summary] | None = None

        self._turn = threading.RLock()  # guards the rest, and is held during a write
        self._engine: Engine | None = None
        self._reasons: dict[str, str] = {}
        self._moved_aside = self._notice = ""
        self._ended: int | None = None  # how many ended runs are stored

    @property
    def recovered(self) -> Sequence[Summary]:
        return self._recovered or ()

    def open(self) -> None:
        """Try to open the database; a failure is logged and in the status, and each call tries again."""
        try:
            self._do(lambda _: None, patience_s=OPEN_PATIENCE_S)
        except StoreError as error:
            log.error("runs will not be stored: %s", error)  # noqa: TRY400 - a sentence for people
            return
        log.info("runs are stored in %s", self._database.location)
        for run in self.recovered:
            log.warning("run %s was interrupted: the agent died after %.0f ms of it", run.id, run.duration_ms)

    # --- The interface of a store -----------------------------------------------------------------

    def save(self, run: StoredRun) -> None:
        statement = upsert(self._database.insert, run)
        self._do(lambda c: c.execute(statement), "lazy" if run.summary.result == "running" else "durable")

    def find(self, query: Query) -> list[Summary]:
        return self._do(lambda c: [summary(row) for row in c.execute(page(query))])

    def get(self, run_id: str) -> StoredRun | None:
        row = self._do(lambda c: c.execute(select(RUNS).where(RUNS.c.id == run_id)).one_or_none())
        return StoredRun(summary(row), row.environment, row.evidence) if row else None

    def delete(self, run_id: str) -> bool:
        statements = [delete(RUNS).where(RUNS.c.id == run_id)]
        return self._do(lambda c: self._delete(c, statements), "durable") > 0

    def prune(self, spare: str = "") -> int:
        statements = beyond(self._retention, self._mine(), datetime.now(UTC), spare)
        return self._do(lambda c: self._delete(c, statements), "lazy")

    def newest_of_each(self, most: int) -> list[Evidence]:
        found = [self._evidence(run_id) for run_id in reversed(self._do(lambda c: self._newest_ids(c, most)))]
        return [evidence for evidence in found if evidence]

    def status(self) -> StoreStatus:
        reasons = [*self._reasons.copy().values()]
        if self._engine and (displaced := self._database.displaced()):
            reasons.append(f"{displaced}; with the next run it is opened again, or a new one is begun")
        reason = "; ".join(dict.fromkeys(reasons))
        return StoreStatus(
            kind=self._database.kind,
            state="down" if reason else "up",
            location=self._database.location,
            reason=reason,
            moved_aside=self._moved_aside,
            notice=self._notice,
            runs=self._ended,
            bytes=self._database.size(),
        )

    def close(self) -> None:
        with self._turn:
            if self._engine:
                self._engine.dispose()
                self._engine = None
            self._database.close()

    # --- How it works -----------------------------------------------------------------------------

    def _mine(self) -> list[ColumnElement[bool]]:
        """Conditions that limit a statement to this agent's runs, in a shared database."""
        return [RUNS.c.machine == self._machine] if self._database.shared else []

    def _delete(self, connection: Connection, statements: Iterable[Delete]) -> int:
        deleted = sum(connection.execute(statement).rowcount for statement in statements)
        self._count(connection)
        return deleted

    def _count(self, connection: Connection) -> None:
        self._ended = connection.execute(how_many(self._mine())).scalar_one()

    def _newest_ids(self, connection: Connection, most: int) -> list[str]:
        ids: dict[tuple[str, ...], str] = {}
        for run_id, *labels in connection.execute(newest(self._machine).limit(MOST_LOOKED_AT)):
            ids.setdefault(tuple(labels), run_id)
            if len(ids) == most:
                break
        return list(ids.values())

    def _evidence(self, run_id: str) -> Evidence | None:
        row = self._do(lambda c: c.execute(select(RUNS.c.evidence).where(RUNS.c.id == run_id)).scalar())
        try:
            return Evidence.from_json(row) if row else None
        except ValidationError as error:
            log.warning("the evidence of run %s is of another version, and not remembered: %s", run_id, error)
            return None

    def _do(self, work: Callable[[Connection], T], write: Write = "", patience_s: float = 0) -> T:
        """Do `work` in a transaction; again on a new database if this one is corrupt."""
        kind = "write" if write else "read"  # reading still works on a full disk
        try:
            try:
                done = self._attempt(work, write, patience_s)
            except CorruptError as error:
                self._begin_anew(error)
                done = self._attempt(work, write, patience_s)
        except StoreError as error:
            self._reasons[kind] = str(error)
            raise
        for proven in ("write", "read") if write else ("read",):
            self._reasons.pop(proven, None)
        return done

    def _attempt(self, work: Callable[[Connection], T], write: Write, patience_s: float) -> T:
        engine = None
        try:
            with self._turn if write else nullcontext():
                engine = self._opened(patience_s)
                with _transaction(engine, write) as connection, connection.begin():
                    return work(connection)
        except (SQLAlchemyError, OSError) as error:
            raise self._explained(error, engine) from error

    def _explained(self, error: Exception, engine: Engine | None) -> StoreError:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if self._database.is_corrupt(cause):
            return CorruptError(str(cause), engine)
        return StoreError(self._database.why(cause))

    def _opened(self, patience_s: float) -> Engine:
        """The engine; the first call updates the tables, and ends the runs of an agent that died."""
        engine = self._engine
        if engine and not self._database.displaced():
            return engine
        with self._turn:
            if self._engine and (displaced := self._database.displaced()):
                self._let_go(self._engine, displaced)
            if self._engine is None:
                engine = self._database.open(patience_s)
                try:
                    with _transaction(engine, "migration") as connection, connection.begin():
                        migrate(connection)
                        recovered = self._recover(connection)
                        self._count(connection)
                except BaseException:
                    engine.dispose()
                    raise
                self._database.opened()
                self._engine, self._recovered = engine, recovered
            return self._engine

    def _let_go(self, engine: Engine, displaced: str) -> None:
        runs, self._engine = self._ended, None
        if self._database.let_go(engine):
            self._notice = f"{displaced}; no run was lost"
        else:
            self._notice = f"{displaced}: {runs or 0} runs were in it; what is there now is used, or a new one begun"
        log.error("%s", self._notice)

    def _recover(self, connection: Connection) -> Sequence[Summary]:
        """End the runs of an agent that died.  Only once: later, a running run is of this agent."""
        if self._recovered is not None:
            return self._recovered
        return [self._end(connection, row.id) for row in connection.execute(self._running())]

    def _running(self) -> Any:
        return select(RUNS.c.id).where(RUNS.c.result == "running", *self._mine()).order_by(RUNS.c.id)

    def _end(self, connection: Connection, run_id: str) -> Summary:
        row = connection.execute(select(RUNS).where(RUNS.c.id == run_id)).one()
        ended = replace(summary(row), result="interrupted", ended_by="agent_died", failure=DIED)
        changes = {name: getattr(ended, name) for name in ("result", "ended_by", "failure")}
        evidence: Mapping[str, Any] | None = row.evidence
        if evidence:
            changes["evidence"] = {**evidence, "run": {**evidence["run"], "ended_by": ended.ended_by}}
        connection.execute(update(RUNS).where(RUNS.c.id == run_id).values(changes))
        return ended

    def _begin_anew(self, corrupt: CorruptError) -> None:
        with self._turn:
            if self._engine is not corrupt.engine:
                return  # another thread has replaced it
            if self._engine:
                self._engine.dispose()
                self._engine = None
            try:
                moved = self._database.move_aside()
            except OSError as error:
                sentence = f"{self._database.location}: {corrupt}, and cannot be moved aside: {error.strerror}"
                raise StoreError(sentence) from error
            self._moved_aside = str(moved)
            log.error("%s: %s; it is %s now, and a new one is begun", self._database.location, corrupt, moved)


def _transaction(engine: Engine, write: Write) -> Connection:
    return engine.connect().execution_options(write=write)
