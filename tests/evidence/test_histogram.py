"""What a slot means, and how far a quantile read from one may be off."""

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


def test_slots_follow_each_other():
    """Bounds grow, and the value after a slot's last one is in the next slot."""
    assert list(UPPER_BOUNDS_NS) == sorted(set(UPPER_BOUNDS_NS))
    for slot in range(HISTOGRAM_SLOTS - 1):
        assert slot_of(upper_bound_ns(slot)) == slot
        assert slot_of(upper_bound_ns(slot) + 1) == slot + 1
        assert lower_bound_ns(slot + 1) == upper_bound_ns(slot)


def test_the_first_slots_are_exact():
    """0 and 1 share one; up to 16 ns each value has its own."""
    assert [slot_of(ns) for ns in (0, 1, 2, 3, 16, 17)] == [0, 0, 1, 2, 15, 16]
    assert lower_bound_ns(0) == 0


def test_powers_of_two_are_bounds():
    """So Prometheus' `le` splits no slot."""
    assert {2**power for power in range(44)} <= set(UPPER_BOUNDS_NS)


def test_the_last_slot_has_no_end():
    """It reaches 2^43 ns and takes everything above."""
    assert upper_bound_ns(HISTOGRAM_SLOTS - 1) == 2**43
    assert slot_of(2**43 + 1) == slot_of(2**63) == HISTOGRAM_SLOTS - 1


@pytest.mark.parametrize("seed", range(20))
def test_quantiles_are_within_their_promise(counted, seed):
    """At most 3.1 % from the exact one, for latencies of every scale and spread."""
    random = Random(seed)  # noqa: S311 - no secret; it has to be repeatable
    values = sorted(int(random.lognormvariate(5 + seed / 2, 1.5)) for _ in range(1 + 53 * seed))
    found = counted(*values)

    for q in (*QUANTILES, 0.001, 1):
        exact = values[max(ceil(q * len(values)), 1) - 1]
        answer = quantile_ns(found.slots, q, found.min, found.max)
        assert answer == pytest.approx(exact, rel=0.031, abs=1)
        assert found.min <= answer <= found.max


@pytest.mark.parametrize("value", [0, 1, 17, 1_000_003, 2**50])
def test_a_single_value_is_its_own_quantile(counted, value):
    """The exact extremes bound the answer: exact where they meet, even beyond the last slot."""
    found = counted(value, value, value)

    assert {quantile_ns(found.slots, q, found.min, found.max) for q in QUANTILES} == {value}


def test_a_quantile_is_in_the_slot_of_its_rank(counted):
    """95 of 100 values are small: the 95 % quantile is small, the 96 % one is not."""
    found = counted(*[1000] * 95, *[9_000_000] * 5)

    assert quantile_ns(found.slots, 0.95, found.min, found.max) == pytest.approx(1000, rel=0.031)
    assert quantile_ns(found.slots, 0.96, found.min, found.max) == pytest.approx(9_000_000, rel=0.031)
