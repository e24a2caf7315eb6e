"""The result of a comparison, with the shape of its JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chainbench_agent.compare.verdict import Reason, Verdict
from chainbench_agent.evidence.model import Labels


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Model):
    """A reason of the verdict; one that does not decide is a note."""

    reason: Reason
    decides: bool
    sentence: str

    @classmethod
    def of(cls, reason: Reason) -> Finding:
        return cls(reason=reason, decides=reason.decides, sentence=reason.sentence)


class Change(_Model):
    """How the duration of the optimized side differs; negative is faster.

    `low` and `high` bound the change with `confidence` percent; they are absent if so few runs allow no bounds.
    """

    ratio: float
    pct: float
    low_pct: float | None = None
    high_pct: float | None = None
    ms: float
    """The difference of the sides' typical durations."""
    low_ms: float | None = None
    high_ms: float | None = None
    confidence: int
    p: float
    method: Literal["rank-sum", "signed-rank"]
    alternated: bool
    """Whether the runs, by their start times, form pairs of one run of each side."""
    pairs: int | None = None
    """How many pairs were compared; absent where the sides were compared as a whole."""
    separated: bool
    """Every run of one side was faster than every run of the other."""


DurationsFrom = Literal["main_thread", "run", "reported"]


class Summary(_Model):
    """The durations of a side in short.  `typical_ms` is the mean of the middle half."""

    typical_ms: float
    min_ms: float
    median_ms: float
    max_ms: float


class Side(_Model):
    n: int
    runs: tuple[str, ...]
    """Ids, in the order of their start."""
    durations_ms: tuple[float, ...]
    """In the same order."""
    durations_from: tuple[DurationsFrom, ...]
    """Where the durations come from; one entry if all have the same origin."""
    labels: Labels
    """The labels that all runs have in common; others are empty."""
    summary: Summary
    median_run: str
    """Id of the run at the median of the durations, or just above it."""


class Because(_Model):
    """A metric that changed with a line of the ledger, and was assigned to it beforehand."""

    metric: str
    text: str
    baseline: float
    optimized: float
    fewer_ms: float | None = None
    """The part of the change that comes from the count: fewer (negative) or more."""
    slower_ms: float | None = None
    """The part of the change that comes from the mean time: slower (positive) or faster."""
    in_every_run: bool
    """Each side had one value only, so there is nothing to test."""
    p_adjusted: float | None = None


class Line(_Model):
    """A line of the ledger.  The interval is of 95 %, of all runs; none is a test."""

    line: str
    text: str
    baseline_ms: float
    optimized_ms: float
    delta_ms: float
    share: float | None = None
    """Part of the total change; absent if that is zero."""
    low_ms: float | None = None
    high_ms: float | None = None
    approximate: bool = False
    because: tuple[Because, ...] = ()


class Waterfall(_Model):
    """Where the change went: the lines add up to `total_ms` exactly."""

    of: Literal["main_thread"] = "main_thread"
    total_ms: float
    baseline_runs: tuple[str, ...]
    """The middle half of the side by duration, less the runs that the ledger does not explain."""
    optimized_runs: tuple[str, ...]
    lines: tuple[Line, ...]


class Threads(_Model):
    """The work of all threads together, which is not wall-clock time, over the runs of the waterfall."""

    lines: tuple[Line, ...]


class Metric(_Model):
    name: str
    unit: str
    baseline: float
    optimized: float
    """Medians of the sides."""
    change_pct: float | None = None
    low: float | None = None
    high: float | None = None
    """Bounds of the difference in `unit`."""
    p: float | None = None
    """Absent where each side had one value only."""
    p_adjusted: float | None = None
    tier: Literal["supporting", "exploratory"]
    line: str = ""
    """The line of the ledger that a supporting metric was assigned to beforehand."""


class Difference(_Model):
    """A condition that was not the same in all runs."""

    name: str
    baseline: tuple[str, ...]
    optimized: tuple[str, ...]


class Environment(_Model):
    """`same`: the conditions that all runs had in common.  `allowed`: the differences do not prevent a verdict."""

    same: dict[str, str]
    differences: tuple[Difference, ...] = ()
    allowed: bool = False


class WatchingCost(_Model):
    """The CPU time of the target that the agent took in a typical run, as far as it is known."""

    baseline_ms: float
    optimized_ms: float
    delta_ms: float
    share: float | None = None
    """Part of the change of the duration."""


class Control(_Model):
    """The same commands, not watched.  The verdict is about these."""

    baseline_ms: tuple[float, ...]
    optimized_ms: tuple[float, ...]
    typical_baseline_ms: float
    typical_optimized_ms: float
    watched: Change
    """The change of the watched runs, which the explanation is about."""


class Comparison(_Model):
    verdict: Verdict
    reasons: tuple[Finding, ...]
    sentence: str
    certain: str = ""
    """The bounds of the change in words, also without a claim."""
    would_tell: str = ""
    """How many runs it would take to say more."""
    change: Change | None = None
    """Absent where the sides are not comparable."""
    baseline: Side
    optimized: Side
    waterfall: Waterfall | None = None
    threads: Threads | None = None
    metrics: tuple[Metric, ...] = ()
    environment: Environment
    cost: WatchingCost | None = None
    control: Control | None = None
    unavailable: dict[str, str] = Field(default_factory=dict)
    """Parts of the comparison that are absent, and why."""

    def as_json(self) -> dict[str, Any]:
        """Plain types, ready for JSON; what has no value is left out."""
        return self.model_dump(mode="json", exclude_none=True)
