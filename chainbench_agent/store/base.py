"""What a store is, and what it keeps of a run."""

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
    """What is kept: this many runs, none older than so many days; 0 days: whatever their age."""

    runs: int
    days: float = 0


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
