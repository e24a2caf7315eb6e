"""Defines the interface of a store, and the store that stores nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chainbench_agent.errors import StoreError
from chainbench_agent.evidence.model import Evidence
from chainbench_agent.model.status import StoreStatus
from chainbench_agent.model.stored_run import Query, StoredRun, Summary

FROM_CHECKPOINT = "what is here is from its last checkpoint"


@dataclass(frozen=True, slots=True)
class Retention:
    """How many runs stay in the store, and for how many days; 0 days: regardless of their age."""

    runs: int
    days: float = 0


class Store(Protocol):
    """Stores runs.  Thread-safe.  Each call but status and close may raise StoreError."""

    @property
    def recovered(self) -> Sequence[Summary]:
        """Runs that were running when the store was opened, because their agent died.  They are interrupted now."""

    def save(self, run: StoredRun) -> None:
        """Write a run, or replace it.  A running one survives this process; any other is on the disk.

        A running state does not replace that of a run that has ended.
        """

    def find(self, query: Query) -> list[Summary]:
        """The runs that fit the query, the newest first."""

    def get(self, run_id: str) -> StoredRun | None:
        """A run, or None if none has that id."""

    def delete(self, run_id: str) -> bool:
        """Delete a run; whether there was one with that id."""

    def prune(self, spare: str = "") -> int:
        """Delete the runs that exceed the retention, and return how many.

        The run with the id `spare` stays, however old it looks after the clock was set, and counts as one that stays.
        """

    def newest_of_each(self, most: int) -> list[Evidence]:
        """The machine's latest evidence of each label set, of the `most` sets used last; the newest at the end."""

    def status(self) -> StoreStatus: ...

    def close(self) -> None:
        """Release everything; the store cannot be used again."""


class NoStore:
    """Stores nothing."""

    recovered: Sequence[Summary] = ()

    def save(self, run: StoredRun) -> None:
        """Do nothing, as `--store none` asks."""

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
        """Hold nothing, so release nothing."""

    def _off(self) -> StoreError:
        return StoreError("this agent stores no runs; start it without --store none")
