"""The ranges of slots, and the accuracy of quantiles."""

from math import ceil
from random import Random

import pytest

from chainbench_agent.abi.histogram import (
    QUANTILES,
    UPPER_BOUNDS_NS,
    lower_bound_ns,
    quantile_ns,
    slot_of,
    upper_bound_ns,
)
from chainbench_agent.catalog import HISTOGRAM_SLOTS


def quantile_of(values, q):
    """The quantile as read from the slots that these values fall into."""
    slots = [0] * HISTOGRAM_SLOTS
    for value in values:
        slots[slot_of(value)] += 1
    return quantile_ns(slots, q, min(values), max(values))


def test_slots_follow_each_other_without_gaps():
    """Bounds grow, and the value after the last one of a slot is in the next slot."""
    assert list(UPPER_BOUNDS_NS) == sorted(set(UPPER_BOUNDS_NS))
    for slot in range(HISTOGRAM_SLOTS - 1):
        assert slot_of(upper_bound_ns(slot)) == slot
        assert slot_of(upper_bound_ns(slot) + 1) == slot + 1
        assert lower_bound_ns(slot + 1) == upper_bound_ns(slot)


def test_the_first_slots_are_exact():
    """0 and 1 share a slot; every value up to 16 ns has its own."""
    assert [slot_of(ns) for ns in (0, 1, 2, 3, 16, 17)] == [0, 0, 1, 2, 15, 16]
    assert lower_bound_ns(0) == 0


def test_powers_of_two_are_bounds():
    """So Prometheus' `le` does not split a slot."""
    assert {2**power for power in range(44)} <= set(UPPER_BOUNDS_NS)


def test_the_last_slot_has_no_end():
    """It ends at 2^43 ns, and also counts everything above."""
    assert upper_bound_ns(HISTOGRAM_SLOTS - 1) == 2**43
    assert slot_of(2**43 + 1) == slot_of(2**63) == HISTOGRAM_SLOTS - 1


@pytest.mark.parametrize("seed", range(20))
def test_quantiles_are_at_most_3_percent_off(seed):
    """For latencies of every scale and spread."""
    random = Random(seed)  # noqa: S311 - no secret; it has to be repeatable
    values = sorted(int(random.lognormvariate(5 + seed / 2, 1.5)) for _ in range(1 + 53 * seed))

    for q in (*QUANTILES, 0.001, 1):
        exact = values[max(ceil(q * len(values)), 1) - 1]
        answer = quantile_of(values, q)
        assert answer == pytest.approx(exact, rel=0.031, abs=1)
        assert values[0] <= answer <= values[-1]


@pytest.mark.parametrize("value", [0, 1, 17, 1_000_003, 2**50])
def test_a_single_value_is_its_own_quantile(value):
    """The exact extremes bound the result, which is exact where they are equal, also above the last slot."""
    assert {quantile_of([value] * 3, q) for q in QUANTILES} == {value}


def test_a_quantile_is_in_the_slot_of_its_rank():
    """95 of 100 values are small: the 95 % quantile is small, the 96 % quantile is not."""
    values = [*[1000] * 95, *[9_000_000] * 5]

    assert quantile_of(values, 0.95) == pytest.approx(1000, rel=0.031)
    assert quantile_of(values, 0.96) == pytest.approx(9_000_000, rel=0.031)
