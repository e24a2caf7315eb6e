"""What a histogram slot means.  The other half of this convention is probes/lib/common.h.

Log-linear: 16 slots for every power of two of nanoseconds.  A slot's upper bound is inclusive and slot 0 holds 0 and 1,
so that the bounds at powers of two serve as Prometheus' `le` without splitting a slot.
"""

from __future__ import annotations

from collections.abc import Sequence

from chainbench_agent.catalog import HISTOGRAM_SLOTS, SLOTS_PER_OCTAVE_BITS

_PER_OCTAVE = 1 << SLOTS_PER_OCTAVE_BITS
QUANTILES = (0.5, 0.95, 0.99)


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
    """The `q`-quantile: the middle of the slot it falls into, so at most 3.1 % from the exact one.

    `least` and `most` are the exact extremes; they bound the answer.  The slots must hold at least one value.
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
