"""Histograms: the meaning of a slot, and the counts of all slots.  The C half of this convention is probes/common.h.

The slots are log-linear: 16 for every power of two of nanoseconds.  A slot's upper bound is inclusive and slot 0
holds 0 and 1, so that the bounds at powers of two serve as Prometheus' `le` without splitting a slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chainbench_agent.catalog import HISTOGRAM_SLOTS, SLOTS_PER_OCTAVE_BITS

_PER_OCTAVE = 1 << SLOTS_PER_OCTAVE_BITS
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class HistogramCounts:
    """A histogram summed over the CPUs.  Nanoseconds; `min` and `max` are None when nothing was observed yet."""

    slots: tuple[int, ...]
    sum: int
    min: int | None
    max: int | None

    def observe(self, values_ns: Iterable[int]) -> HistogramCounts:
        """The histogram with more values, counted as cb_observe() of probes/common.h counts them."""
        values, slots = tuple(values_ns), list(self.slots)
        for ns in values:
            slots[slot_of(ns)] += 1
        extremes = (*values, *(bound for bound in (self.min, self.max) if bound is not None))
        total = self.sum + sum(values)
        return HistogramCounts(tuple(slots), total, min(extremes, default=None), max(extremes, default=None))


NOTHING_OBSERVED = HistogramCounts((0,) * HISTOGRAM_SLOTS, 0, None, None)


def slot_of(ns: int) -> int:
    """The slot that counts a value of `ns` nanoseconds."""
    value = max(ns - 1, 0)
    if value < _PER_OCTAVE:
        return value
    shift = value.bit_length() - 1 - SLOTS_PER_OCTAVE_BITS
    return min((shift << SLOTS_PER_OCTAVE_BITS) + (value >> shift), HISTOGRAM_SLOTS - 1)


def upper_bound_ns(slot: int) -> int:
    """The largest value that `slot` holds; the last slot also holds everything above."""
    if slot < _PER_OCTAVE:
        return slot + 1
    shift = (slot >> SLOTS_PER_OCTAVE_BITS) - 1
    return (_PER_OCTAVE + (slot & (_PER_OCTAVE - 1)) + 1) << shift


def lower_bound_ns(slot: int) -> int:
    """Every value in `slot` is greater than this; slot 0 also holds 0."""
    return upper_bound_ns(slot - 1) if slot else 0


UPPER_BOUNDS_NS = tuple(upper_bound_ns(slot) for slot in range(HISTOGRAM_SLOTS))


def quantile_ns(slots: Sequence[int], q: float, least: int, most: int) -> float:
    """The `q`-quantile: the middle of the slot that it falls into, so at most 3.1 % off the exact one.

    `least` and `most` are the exact extremes, and bound the result.  The slots must hold at least one value.
    """
    rank = q * sum(slots)
    seen = 0
    for slot, count in enumerate(slots):
        seen += count
        if count and seen >= rank:
            lower, upper = lower_bound_ns(slot) + 1, upper_bound_ns(slot)
            # the harmonic mean is equally far, in percent, from both ends
            return min(max(2 * lower * upper / (lower + upper), least), most)
    return float(most)
