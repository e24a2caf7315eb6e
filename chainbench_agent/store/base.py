"""What a store is, and what it keeps of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, Protocol

from chainbench_agent.errors import StoreError
from chainbench_agent.evidence.model import Evidence, Labels, Run

Result = Literal["running", "finished", "failed", "interrupted"]
"""`interrupted`: the agent was shut down in it, or died."""

FROM_CHECKPOINT = "what is here is from its last checkpoint"

LABELS = (*Labels.model_fields, "machine")
"""What runs can be looked for by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run without its evidence.  `source` is empty while there is none; `failure` says what went wrong."""

    id: str
    labels: Labels
    machine: str
    started_at: datetime
    duration_ms: float
    ended_by: str
    result: Result
    source: str = ""
    failure: str = ""

    @classmethod
    def of(cls, run: Run, result: Result, source: str = "", failure: str = "") -> Summary:
        return cls(
            id=run.id,
            labels=Labels.of(run),
            machine=run.machine,
            started_at=run.started_at,
            duration_ms=run.duration_ms,
            ended_by=run.ended_by,
            result=result,
            source=source,
            failure=failure,
        )

    def flat(self) -> dict[str, Any]:
        """Each field, and each label beside them."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}  # asdict would copy all of it
        return {**values.pop("labels").model_dump(), **values}


@dataclass(frozen=True, slots=True)
class StoredRun:
    """`evidence` is JSON as `/stop` answers it; None where there was none yet.  `environment`: see environment.py."""

    summary: Summary
    environment: Mapping[str, Any]
    evidence: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """Which runs.  `labels`: of LABELS, name → value.  `before`: only those whose id sorts before this one."""

    labels: Mapping[str, str] = field(default_factory=dict)
    result: Result | None = None
    before: str = ""
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept: this many runs, none older than so many days; 0 days: whatever their age."""

    runs: int
    days: float = 0


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """`off`: nothing is to be kept; `down`: it cannot be, and `reason` says why and what would help.

    `moved_aside`: where the database lies that was found corrupt, since a new one was begun.
    `notice`: what became of the database under this agent, since another was begun.
    `runs`: how many that ended it had when one last ended or was deleted.  `bytes`: of SQLite's files.
    """

    kind: Literal["none", "sqlite", "postgresql"]
    state: Literal["up", "down", "off"]
    location: str = ""
    reason: str = ""
    moved_aside: str = ""
    notice: str = ""
    runs: int | None = None
    bytes: int | None = None


class Store(Protocol):
    """Keeps runs; from any number of threads.  Each call but status and close may raise StoreError."""

    @property
    def recovered(self) -> Sequence[Summary]:
        """The runs that were found running when the store was opened: their agent died.  They are interrupted now."""

    def save(self, run: StoredRun) -> None:
        """Write the run, over what was there of it.  A running one survives this process; any other is on the disk.

        What has ended stays so: a running state does not replace it.
        """

    def find(self, query: Query) -> list[Summary]:
        """The newest first."""

    def get(self, run_id: str) -> StoredRun | None:
        """None where no such run is kept."""

    def delete(self, run_id: str) -> bool:
        """Whether there was such a run."""

    def prune(self, spare: str = "") -> int:
        """Delete what is beyond the retention; how many runs that was.

        The run with the id `spare` stays and is one of those kept, however old a clock that was set makes it.
        """

    def newest_of_each(self, most: int) -> list[Evidence]:
        """The machine's latest evidence of each label set, of the `most` sets used last; the newest at the end."""

    def status(self) -> StoreStatus: ...

    def close(self) -> None:
        """The store is of no further use."""


class NoStore:
    """Keeps nothing."""

    recovered: Sequence[Summary] = ()

    def save(self, run: StoredRun) -> None:
        """Not kept, as was asked for."""

    def find(self, query: Query) -> list[Summary]:
        del query
        raise self._off()

    def get(self, run_id: str) -> StoredRun | None:
        del run_id
        raise self._off()

    def delete(self, run_id: str) -> bool:
        del run_id
        raise self._off()

    def prune(self, spare: str = "") -> int:
        del spare
        return 0

    def newest_of_each(self, most: int) -> list[Evidence]:
        del most
        return []

    def status(self) -> StoreStatus:
        return StoreStatus("none", "off")

    def close(self) -> None:
        """Nothing is held."""

    def _off(self) -> StoreError:
        return StoreError("this agent stores no runs; start it without --store none")
