"""Converts histograms to JSON and back: from nanoseconds by slot to microseconds by upper bound.  Pure.

A section holds its histograms as HistogramCounts; nothing else knows the shape that they have in JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chainbench_agent.abi.histogram import QUANTILES, UPPER_BOUNDS_NS, HistogramCounts, quantile_ns, slot_of
from chainbench_agent.catalog import HISTOGRAM_SLOTS

Json = dict[str, Any]

WHOLE_SECTION = "latency_us"
"""The key of a distribution that *is* its module's section: in JSON its keys are the section's own."""

QUANTILE_KEYS = {f"p{q * 100:.0f}_us": q for q in QUANTILES}

COUNTED = ("count", "sum_us")
IF_ANY = ("min_us", "max_us", "mean_us", *QUANTILE_KEYS)
"""The keys of a summary: the latter are absent from a histogram without observations."""


def summary(counts: HistogramCounts) -> dict[str, int | float]:
    """`{count, sum_us, min_us, max_us, mean_us, p50_us, p95_us, p99_us}`, of which IF_ANY only after an observation."""
    total = sum(counts.slots)
    found: dict[str, int | float] = {"count": total, "sum_us": counts.sum / 1e3}
    if not total or counts.min is None or counts.max is None:
        return found
    found |= {
        "min_us": counts.min / 1e3,
        "max_us": counts.max / 1e3,
        "mean_us": round(counts.sum / total / 1e3, 3),
    }
    for key, q in QUANTILE_KEYS.items():
        found[key] = round(quantile_ns(counts.slots, q, counts.min, counts.max) / 1e3, 3)
    return found


def to_json(counts: HistogramCounts) -> Json:
    """The summary, behind the slots that are not empty: `histogram: [{bucket_us, count}]`, by inclusive upper bound."""
    slots = [
        {"bucket_us": UPPER_BOUNDS_NS[slot] / 1e3, "count": count} for slot, count in enumerate(counts.slots) if count
    ]
    return {"histogram": slots, **summary(counts)}


def from_json(found: Mapping[str, Any]) -> HistogramCounts:
    """Reverses `to_json`; the mean and the quantiles follow from the rest."""
    slots = [0] * HISTOGRAM_SLOTS
    for bucket in found["histogram"]:
        slots[slot_of(_ns(bucket["bucket_us"]))] += bucket["count"]
    extremes = (_ns(found[key]) if key in found else None for key in ("min_us", "max_us"))
    return HistogramCounts(tuple(slots), _ns(found["sum_us"]), *extremes)


def section_to_json(section: Mapping[str, Any]) -> Json:
    """A module's section with each of its histograms as JSON."""
    found: Json = {}
    for key, value in section.items():
        if not isinstance(value, HistogramCounts):
            found[key] = value
        elif key == WHOLE_SECTION:
            found |= to_json(value)
        else:
            found[key] = to_json(value)
    return found


def section_from_json(section: Mapping[str, Any]) -> Json:
    """Reverses `section_to_json`: whatever has slots is a histogram, also of a module that this agent does not know."""
    is_whole = "histogram" in section
    found: Json = {}
    for key, value in section.items():
        if is_whole and key in ("histogram", *COUNTED, *IF_ANY):
            if WHOLE_SECTION not in found:
                found[WHOLE_SECTION] = from_json(section)
        elif isinstance(value, Mapping) and "histogram" in value:
            found[key] = from_json(value)
        else:
            found[key] = value
    return found


def _ns(us: float) -> int:
    return round(us * 1e3)
