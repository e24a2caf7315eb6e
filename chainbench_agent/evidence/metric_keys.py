"""The name and the unit that a metric has in the evidence."""

from __future__ import annotations

from functools import cache
from typing import Literal

from chainbench_agent.catalog import Derived, Distribution, Metric

Unit = Literal["count", "ns", "us", "ms", "bytes", "pages", "percent"]

UNIT_BY_WORD: dict[str, Unit] = {
    "ms": "ms",
    "us": "us",
    "bytes": "bytes",
    "pages": "pages",
    "percent": "percent",
    "ratio": "percent",
}
"""A word of a key names the unit; a key without such a word is a count."""


def reported_key(metric: Metric) -> str:
    """`on_cpu_ns` → `on_cpu_ms`; a distribution's `wakeup_latency_ns` → `wakeup_latency_us`."""
    if not metric.name.endswith("_ns"):
        return metric.name
    return metric.name.removesuffix("_ns") + ("_us" if isinstance(metric, Distribution) else "_ms")


@cache
def unit_of_key(key: str) -> Unit:
    """`read_bytes` → `bytes`."""
    return next((UNIT_BY_WORD[word] for word in key.split("_") if word in UNIT_BY_WORD), "count")


def reported_unit(metric: Metric) -> Unit:
    """The unit of a metric's numbers in the JSON; that of a list is in the name of its value."""
    if isinstance(metric, Derived) and metric.value in UNIT_BY_WORD:
        return UNIT_BY_WORD[metric.value]
    return unit_of_key(reported_key(metric))
