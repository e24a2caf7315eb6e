"""A figure with its spread, and what is asked of it."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of some rounds and its spread: their extremes, or an interval of the median."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """The median of `values`, between their extremes."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    @classmethod
    def with_interval(cls, values: Sequence[float]) -> Figure:
        """The median of `values` with its 95 % bootstrap interval; of fewer than three, their extremes."""
        if len(values) < 3:
            return cls.of(values)
        source = random.Random(0)  # noqa: S311 - the same values give the same interval
        medians = sorted(statistics.median(source.choices(values, k=len(values))) for _ in range(RESAMPLES))
        return cls(statistics.median(values), percentile(medians, 2.5), percentile(medians, 97.5), len(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that so many percent of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Row:
    """A goal and the result.  `reach`: the most that the result may be, in `unit`, or None without a goal.

    peers: who else → the same of them.  below_peers: it has to be less than each of these as well.
    """

    section: str
    what: str
    unit: str
    ours: Figure
    reach: float | None = None
    peers: Mapping[str, Figure] = field(default_factory=dict)
    below_peers: bool = False
    note: str = ""

    @property
    def misses(self) -> tuple[str, ...]:
        """Sentences on missed goals and by how much; empty if all are reached."""
        found = []
        if self.reach is not None and self.ours.median > self.reach:
            found.append(f"{shown(self.ours.median)} {self.unit}, where the goal was {shown(self.reach)}")
        if self.below_peers:
            found += [
                f"not below {name}: {shown(self.ours.median)} against {shown(peer.median)} {self.unit}"
                f"{', within the spread' if self.ours.low < peer.high else ''}"
                for name, peer in self.peers.items()
                if self.ours.median >= peer.median
            ]
        return tuple(found)


def shown(value: float) -> str:
    """The number with about three digits; thousands are separated by commas."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
