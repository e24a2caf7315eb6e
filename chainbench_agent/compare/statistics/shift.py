"""By how much a sample lies above another: the Hodges-Lehmann estimate, its interval, and the test that belongs to it.

The interval consists of the shifts that the test does not reject, so both always say the same; neither assumes a
distribution, and both are exact for up to EXACT_UP_TO values a side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations_with_replacement
from math import gcd, sqrt
from statistics import NormalDist, median
from typing import Literal

from chainbench_agent.compare.statistics.null_counts import critical, midranks, sign_sums, subset_sums, two_sided

EXACT_UP_TO = 60
"""Values a side; beyond, the normal approximation with tie correction is used."""

Method = Literal["rank-sum", "signed-rank"]
NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Shift:
    """`low` and `high` are None where so few values allow no interval with this confidence."""

    estimate: float
    low: float | None
    high: float | None
    p: float
    method: Method

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def rank_sum(
    baseline: Sequence[float], optimized: Sequence[float], alpha: Fraction, exact_up_to: int = EXACT_UP_TO
) -> Shift:
    """The shift between two independent samples, both of which have at least one value."""
    shifts = sorted(b - a for b in optimized for a in baseline)
    exact = max(len(baseline), len(optimized)) <= exact_up_to
    p = _rank_sum_p(baseline, optimized) if exact else _rank_sum_p_normal(baseline, optimized)
    cut = _rank_sum_cut(len(baseline), len(optimized), alpha, exact=exact)
    return Shift(median(shifts), *_between(shifts, cut), p, "rank-sum")


def signed_rank(differences: Sequence[float], alpha: Fraction) -> Shift:
    """The shift within pairs, from the difference of each; there is at least one."""
    walsh = sorted((a + b) / 2 for a, b in combinations_with_replacement(differences, 2))
    exact = len(differences) <= EXACT_UP_TO
    p = _signed_rank_p(differences) if exact else _signed_rank_p_normal(differences)
    cut = _signed_rank_cut(len(differences), alpha, exact=exact)
    return Shift(median(walsh), *_between(walsh, cut), p, "signed-rank")


def _between(shifts: Sequence[float], cut: int | None) -> tuple[float | None, float | None]:
    """The interval that leaves out `cut` of the sorted shifts at each end."""
    if cut is None or cut >= len(shifts) // 2:
        return None, None
    return shifts[cut], shifts[-1 - cut]


def _rank_sum_p(baseline: Sequence[float], optimized: Sequence[float]) -> float:
    """Given which values are tied: over all ways to choose the smaller sample's values from the pooled ones."""
    ranks = midranks([*baseline, *optimized])
    smaller = ranks[: len(baseline)] if len(baseline) <= len(optimized) else ranks[len(baseline) :]
    unit = gcd(*ranks)
    return two_sided(subset_sums((rank // unit for rank in ranks), len(smaller)), sum(smaller) // unit)


def _rank_sum_cut(m: int, n: int, alpha: Fraction, *, exact: bool) -> int | None:
    size = min(m, n)
    if exact:
        return critical(subset_sums(range(m + n), size)[size * (size - 1) // 2 :], alpha)
    return _normal_cut(m * n / 2, sqrt(m * n * (m + n + 1) / 12), alpha)


def _rank_sum_p_normal(baseline: Sequence[float], optimized: Sequence[float]) -> float:
    m, n = len(baseline), len(optimized)
    ranks = midranks([*baseline, *optimized])
    u = sum(ranks[:m]) / 2 - m * (m + 1) / 2
    ties = sum(t**3 - t for t in Counter(ranks).values())
    variance = m * n / 12 * (m + n + 1 - ties / ((m + n) * (m + n - 1)))
    return _normal_p(abs(u - m * n / 2), variance)


def _signed_ranks(differences: Sequence[float]) -> tuple[list[int], int]:
    """Twice the ranks that can have either sign, and the sum of those that are positive.

    A difference of zero takes part in the ranking and has no sign, as in the count of positive Walsh averages.
    """
    ranked = list(zip(midranks([abs(d) for d in differences]), differences, strict=True))
    return [rank for rank, d in ranked if d], sum(rank for rank, d in ranked if d > 0)


def _signed_rank_p(differences: Sequence[float]) -> float:
    ranks, positive = _signed_ranks(differences)
    unit = gcd(*ranks) or 1
    return two_sided(sign_sums(rank // unit for rank in ranks), positive // unit)


def _signed_rank_cut(n: int, alpha: Fraction, *, exact: bool) -> int | None:
    if exact:
        return critical(sign_sums(range(1, n + 1)), alpha)
    return _normal_cut(n * (n + 1) / 4, sqrt(n * (n + 1) * (2 * n + 1) / 24), alpha)


def _signed_rank_p_normal(differences: Sequence[float]) -> float:
    ranks, positive = _signed_ranks(differences)
    return _normal_p(abs(positive / 2 - sum(ranks) / 4), sum((rank / 2) ** 2 for rank in ranks) / 4)


def _normal_p(distance: float, variance: float) -> float:
    """Two-sided, with the continuity correction; 1 where all values are equal."""
    if variance <= 0:
        return 1.0
    return min(1.0, 2 * NORMAL.cdf(-(distance - 0.5) / sqrt(variance)))


def _normal_cut(mean: float, deviation: float, alpha: Fraction) -> int | None:
    cut = int(mean - 0.5 + deviation * NORMAL.inv_cdf(float(alpha) / 2))
    return cut if cut >= 0 else None
