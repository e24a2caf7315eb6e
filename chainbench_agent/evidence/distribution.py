"""A histogram as the evidence has it: its slots, its exact sum, count and extremes, and its quantiles.  Pure."""

from __future__ import annotations

from typing import Any

from chainbench_agent.abi.histogram import QUANTILES, UPPER_BOUNDS_NS, HistogramCounts, quantile_ns


def distribution(counts: HistogramCounts) -> dict[str, Any]:
    """`{histogram: [{bucket_us, count}], count, sum_us, min_us, max_us, mean_us, p50_us, p95_us, p99_us}`.

    `bucket_us` is the slot's inclusive upper bound; empty slots are left out.  Without observations there are no
    extremes, mean and quantiles.
    """
    total = sum(counts.slots)
    answer: dict[str, Any] = {
        "histogram": [
            {"bucket_us": UPPER_BOUNDS_NS[slot] / 1e3, "count": count}
            for slot, count in enumerate(counts.slots)
            if count
        ],
        "count": total,
        "sum_us": counts.sum / 1e3,
    }
    if not total or counts.min is None or counts.max is None:
        return answer
    answer |= {
        "min_us": counts.min / 1e3,
        "max_us": counts.max / 1e3,
        "mean_us": round(counts.sum / total / 1e3, 3),
    }
    for q in QUANTILES:
        answer[f"p{q * 100:.0f}_us"] = round(quantile_ns(counts.slots, q, counts.min, counts.max) / 1e3, 3)
    return answer
