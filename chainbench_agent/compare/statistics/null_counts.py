"""Exact null distributions: in how many equally likely ways chance produces each value of a rank statistic.

One big integer holds a whole distribution, with a fixed number of bits for each value, so that adding an item is one
shift and one addition.  Values that are tied have equal scores, and the counts are right with them as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate


def midranks(values: Sequence[float]) -> list[int]:
    """Twice the rank of each value: equal values share the mean of their ranks, which may be a half."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0] * len(values)
    begin = 0
    while begin < len(order):
        end = begin
        while end < len(order) and values[order[end]] == values[order[begin]]:
            end += 1
        for index in order[begin:end]:
            ranks[index] = begin + end + 1
        begin = end
    return ranks


def subset_sums(scores: Iterable[int], size: int) -> list[int]:
    """At index s: how many subsets of `size` of the scores have the sum s."""
    return _subset_sums(tuple(sorted(scores)), size)


def sign_sums(scores: Iterable[int]) -> list[int]:
    """At index s: how many of all subsets of the scores have the sum s."""
    return _sign_sums(tuple(sorted(scores)))


@lru_cache(maxsize=64)
def _subset_sums(scores: tuple[int, ...], size: int) -> list[int]:
    width = len(scores) // 8 + 1
    rows = [1] + [0] * size
    for seen, score in enumerate(scores):
        shift = 8 * width * score
        for taken in range(min(size, seen + 1), 0, -1):
            rows[taken] += rows[taken - 1] << shift
    return _unpacked(rows[size], width, sum(scores))


@lru_cache(maxsize=64)
def _sign_sums(scores: tuple[int, ...]) -> list[int]:
    width = len(scores) // 8 + 1
    row = 1
    for score in scores:
        row += row << (8 * width * score)
    return _unpacked(row, width, sum(scores))


def _unpacked(packed: int, width: int, highest: int) -> list[int]:
    """The counts of the values 0 … `highest`, each of which has `width` bytes."""
    data = packed.to_bytes(width * (highest + 1), "little")
    return [int.from_bytes(data[at : at + width], "little") for at in range(0, len(data), width)]


def two_sided(counts: Sequence[int], observed: int) -> float:
    """The probability of a value at least as extreme: twice the smaller tail, at most 1."""
    tail = min(sum(counts[: observed + 1]), sum(counts[observed:]))
    return min(1.0, 2 * tail / sum(counts))


def critical(counts: Sequence[int], alpha: Fraction) -> int | None:
    """The largest value whose lower tail is at most alpha / 2; None where even the smallest has more."""
    most = alpha * sum(counts) / 2
    within = sum(1 for tail in accumulate(counts) if tail <= most)
    return within - 1 if within else None
