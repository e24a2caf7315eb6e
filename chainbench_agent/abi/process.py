"""One process as the kernel side counted it in a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Process:
    """The figures of a process in the run: module → metric → value, of the metrics that are counted per process."""

    pid: int
    command: str
    figures: Mapping[str, Mapping[str, int]]
