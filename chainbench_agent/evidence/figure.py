"""A figure: one number of the evidence with its name, its unit, and how far it can be trusted, or why it is absent."""

from __future__ import annotations

from typing import Literal, NamedTuple

from chainbench_agent.abi.histogram import HistogramCounts
from chainbench_agent.evidence.metric_keys import Unit

How = Literal["exact", "sampled", "absent"]
LabelPairs = tuple[tuple[str, str], ...]
"""(name, value), …"""
Value = int | float | HistogramCounts


class Figure(NamedTuple):
    """`module`, `name` and `labels` identify it within an evidence.

    A tuple, because a scrape makes hundreds: a frozen dataclass takes four times as long.
    """

    module: str
    name: str
    """The key in the evidence: `on_cpu_ms`; a part of a metric is behind a dot: `fsync_latency_us.p95_us`."""
    unit: Unit
    """That of the value: a histogram's is ns, although its name says `_us`."""
    labels: LabelPairs = ()
    value: Value | None = None
    error: float | None = None
    """The standard error, in the same unit; a histogram's is that of its count.  None: exact, or not known."""
    how: How = "exact"
    """`sampled`: an estimate from some of the events.  `absent`: there is no value, for this `reason`."""
    reason: str = ""
    source: str = ""
    """The attach points that the metric was measured at, or the file in /proc that has it."""
    machine_wide: bool = False
    """True: it is of the whole machine although the run had a target."""

    @property
    def number(self) -> float | None:
        """The value; None where it is absent, or a histogram."""
        return None if isinstance(self.value, HistogramCounts) else self.value

    @property
    def histogram(self) -> HistogramCounts | None:
        """The value if it is a histogram, in nanoseconds by slot."""
        return self.value if isinstance(self.value, HistogramCounts) else None
