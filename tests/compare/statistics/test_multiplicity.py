import random
from itertools import combinations

import pytest
from scipy import stats

from chainbench_agent.compare.statistics.multiplicity import benjamini_hochberg, holm


def test_benjamini_hochberg_agrees_with_scipy():
    rng = random.Random(1)
    for n in (1, 2, 7, 200):
        ps = [rng.random() ** 3 for _ in range(n)]

        assert benjamini_hochberg(ps) == pytest.approx(stats.false_discovery_control(ps), abs=1e-12)


def test_holm_is_the_closed_test_of_bonferroni():
    """By its definition: a hypothesis falls if every set that holds it does, by Bonferroni."""
    rng = random.Random(2)
    for n in (1, 2, 3, 6):
        ps = [rng.random() ** 3 for _ in range(n)]
        sets = [chosen for size in range(1, n + 1) for chosen in combinations(range(n), size)]
        closed = [
            max(min(1.0, len(chosen) * min(ps[i] for i in chosen)) for chosen in sets if index in chosen)
            for index in range(n)
        ]

        assert holm(ps) == pytest.approx(closed)


def test_nothing_to_adjust():
    assert holm([]) == benjamini_hochberg([]) == []
