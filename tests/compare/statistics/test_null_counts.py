import random
from collections import Counter
from fractions import Fraction
from itertools import combinations
from math import comb

from chainbench_agent.compare.statistics.null_counts import critical, midranks, sign_sums, subset_sums, two_sided


def test_midranks_are_doubled_and_shared():
    assert midranks([30.0, 10.0, 20.0, 10.0]) == [8, 3, 6, 3]


def test_subset_sums_are_those_of_all_subsets():
    """Also where some scores are equal."""
    scores = [1, 1, 3, 4, 4, 4, 9]
    for size in range(8):
        sums = Counter(map(sum, combinations(scores, size)))

        assert {s: n for s, n in enumerate(subset_sums(scores, size)) if n} == sums


def test_sign_sums_are_those_of_all_subsets_of_any_size():
    scores = [2, 2, 5, 8]
    sums = Counter(sum(chosen) for size in range(5) for chosen in combinations(scores, size))

    assert {s: n for s, n in enumerate(sign_sums(scores)) if n} == sums


def test_counts_do_not_run_into_each_other():
    """All ways to choose 60 of 120 tied items have one sum: the largest count that a value can have."""
    assert subset_sums([1] * 120, 60)[60] == comb(120, 60)
    assert sum(subset_sums([random.Random(1).randint(1, 50) for _ in range(120)], 60)) == comb(120, 60)


def test_a_tail_counts_the_observed_value():
    assert two_sided([1, 2, 1], 0) == 0.5
    assert two_sided([1, 2, 1], 1) == 1


def test_the_critical_value():
    """The tail of the largest value is at most half of alpha."""
    assert critical([1, 1, 8, 1, 1], Fraction(2, 12)) == 0
    assert critical([1, 1, 8, 1, 1], Fraction(4, 12)) == 1
    assert critical([1, 1, 8, 1, 1], Fraction(1, 12)) is None
