"""p-values of several tests, adjusted so that more tests do not mean more false claims."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted by Holm: what stays below 5 % is wrong anywhere in at most 5 % of all families."""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    steps = (min(1.0, (len(ps) - place) * ps[index]) for place, index in enumerate(order))
    return _in_place(order, list(accumulate(steps, max)))


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """Adjusted by Benjamini and Hochberg: of what stays below 5 %, about one in twenty is wrong."""
    order = sorted(range(len(ps)), key=ps.__getitem__, reverse=True)
    steps = (min(1.0, len(ps) / (len(ps) - place) * ps[index]) for place, index in enumerate(order))
    return _in_place(order, list(accumulate(steps, min)))


def _in_place(order: Sequence[int], adjusted: Sequence[float]) -> list[float]:
    by_index = dict(zip(order, adjusted, strict=True))
    return [by_index[index] for index in range(len(order))]
