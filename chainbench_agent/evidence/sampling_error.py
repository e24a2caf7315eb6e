"""How far sampled figures may be from the truth.  Pure.

With interval N, each event is recorded with probability p = 1/N, independently of all others, and counts N times:
cb_weight of probes/lib/common.h.  Let event i have size x_i (1 where events are counted), and b_i be 1 if recorded:

    estimate        T  = Σ N·b_i·x_i,  with mean Σ x_i: it is not biased
    its variance    V  = Σ N²·x_i²·p·(1 - p) = (N - 1)·Σ x_i²
    known of that   V' = (N - 1)·S,  with S = Σ N·b_i·x_i², which is Σ x_i² estimated as T estimates Σ x_i

The standard error in the evidence is √V'.  Where events are counted x² = x, so S is the estimate itself; a sum of sizes
needs S from a counter of its own (Counter.squares).  If no event was recorded, the estimate is 0 ± 0, which says
nothing: all of n events are missed with probability (1 - 1/N)^n, and `zero_means_below` is the least n at which that is
at most 5 %.

The figures of `top_processes` are counts and sums of the same events: their errors follow from the same formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log, log1p, sqrt
from typing import Any

from chainbench_agent.catalog import Counter, Derived, Distribution, Metric, Module, Names, Table
from chainbench_agent.evidence.metric_keys import reported_key

SUMS = ("_ns", "_bytes")
"""How the name of a sum of sizes ends; everything else is a count."""

MISSED = 0.05
"""How probable it may be that as many events as `zero_means_below` left no trace."""


def sampling(
    module: Module, counts: Mapping[str, Any], names: Names, unavailable: Mapping[str, str], interval: int
) -> dict[str, Any]:
    """`{sampling: {interval, zero_means_below, standard_error: {key: …}}}`; empty where every event was counted.

    A table has an error for each of its entries, by name; so has an inline mapping that is derived from sampled counts.
    A distribution has one for its count.
    """
    found = [m for m in module.reported if is_sampled(module, m) and reported_key(m) not in unavailable]
    if interval <= 1 or not found:
        return {}
    derived = module.derive(counts, names) if module.derive else {}
    errors: dict[str, Any] = {}
    for metric in found:
        errors |= _errors(metric, counts, derived, names, interval)
    below = ceil(log(MISSED) / log1p(-1 / interval))
    return {"sampling": {"interval": interval, "zero_means_below": below, "standard_error": errors}}


def is_sampled(module: Module, metric: Metric) -> bool:
    """Whether a metric is sampled; a derived one is if one of its sources is."""
    return metric.sampled or any(source.sampled for source in module.sources_of(metric))


def is_sum(metric: Metric) -> bool:
    return metric.name.endswith(SUMS)


def standard_error(squares: int, interval: int) -> float:
    """√V'; of a count, `squares` is the count."""
    return sqrt((interval - 1) * squares)


def _errors(
    metric: Metric, counts: Mapping[str, Any], derived: Mapping[str, Any], names: Names, interval: int
) -> dict[str, Any]:
    """Key → error.  A sum without squares, and what is derived in another way than by adding counts, has none."""
    key = reported_key(metric)
    match metric:
        case Counter(squares=squares) if squares:
            error = standard_error(counts[squares], interval)
            return {key: round(error / 1e6, 6) if metric.name.endswith("_ns") else round(error, 1)}
        case Counter() if not is_sum(metric):
            return {key: round(standard_error(counts[metric.name], interval), 1)}
        case Table(names=called) if not is_sum(metric):
            entries = {called(names, index): count for index, count in enumerate(counts[metric.name]) if count}
            return {key: _by_name(entries, interval)}
        case Distribution():
            return {key: {"count": round(standard_error(sum(counts[metric.name].slots), interval), 1)}}
        case Derived(inline=True) if metric.name in derived:
            return _by_name(derived[metric.name], interval)
    return {}


def _by_name(counts: Mapping[str, int], interval: int) -> dict[str, float]:
    return {name: round(standard_error(count, interval), 1) for name, count in counts.items() if count}
