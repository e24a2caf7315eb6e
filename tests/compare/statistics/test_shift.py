"""The oracles: scipy without ties, the enumeration of every assignment with them."""

import random
from fractions import Fraction
from itertools import combinations, product
from statistics import median

import pytest
from scipy import stats

from chainbench_agent.compare.statistics.shift import rank_sum, signed_rank

ALPHA = Fraction(1, 100)


def drawn(rng, n):
    return [rng.lognormvariate(0, 0.1) for _ in range(n)]


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 3), (5, 5), (3, 10), (10, 10), (20, 7), (40, 60)])
def test_rank_sum_agrees_with_scipy(m, n):
    """The exact p, and the median of all differences."""
    rng = random.Random(m * 100 + n)
    for _ in range(5):
        baseline, optimized = drawn(rng, m), drawn(rng, n)
        found = rank_sum(baseline, optimized, ALPHA)

        assert found.p == pytest.approx(stats.mannwhitneyu(baseline, optimized, method="exact").pvalue, abs=1e-12)
        assert found.estimate == median(b - a for a in baseline for b in optimized)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 10, 25, 50])
def test_signed_rank_agrees_with_scipy(n):
    """The exact p, and the median of the Walsh averages."""
    rng = random.Random(n)
    for _ in range(5):
        differences = [rng.gauss(0.3, 1) for _ in range(n)]
        found = signed_rank(differences, ALPHA)

        assert found.p == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue, abs=1e-12)
        assert found.estimate == median((a + b) / 2 for i, a in enumerate(differences) for b in differences[i:])


@pytest.mark.parametrize(("m", "n"), [(61, 61), (100, 80)])
def test_many_runs_agree_with_scipys_normal_approximation(m, n):
    """With ties, which need the correction."""
    rng = random.Random(m)
    baseline, optimized = [[float(rng.randint(1, 30)) for _ in range(k)] for k in (m, n)]
    expected = stats.mannwhitneyu(baseline, optimized, method="asymptotic").pvalue

    assert rank_sum(baseline, optimized, ALPHA).p == pytest.approx(expected, abs=1e-12)


def test_many_pairs_agree_with_scipys_normal_approximation():
    rng = random.Random(61)
    differences = [rng.gauss(0.2, 1) for _ in range(61)]
    expected = stats.wilcoxon(differences, method="asymptotic", correction=True).pvalue

    assert signed_rank(differences, ALPHA).p == pytest.approx(expected, abs=1e-12)


def enumerated_rank_sum(baseline, optimized):
    """The p-value by all ways to choose which of the pooled values are the baseline's."""
    pooled = [*baseline, *optimized]

    def pairs_won(chosen):
        others = [pooled[i] for i in range(len(pooled)) if i not in chosen]
        return sum((b > pooled[i]) + (b == pooled[i]) / 2 for i in chosen for b in others)

    observed = pairs_won(range(len(baseline)))
    all_of_them = [pairs_won(set(chosen)) for chosen in combinations(range(len(pooled)), len(baseline))]
    tails = sum(v <= observed for v in all_of_them), sum(v >= observed for v in all_of_them)
    return min(1, 2 * min(tails) / len(all_of_them))


@pytest.mark.parametrize(("m", "n"), [(2, 2), (3, 5), (5, 3), (4, 4)])
def test_rank_sum_is_exact_with_ties(m, n):
    """Against every assignment, for values of which most are tied."""
    rng = random.Random(m * 10 + n)
    for _ in range(20):
        baseline, optimized = [[float(rng.randint(1, 4)) for _ in range(k)] for k in (m, n)]

        assert rank_sum(baseline, optimized, ALPHA).p == pytest.approx(enumerated_rank_sum(baseline, optimized))


def enumerated_signed_rank(differences):
    """The p-value by all ways to choose the signs; the statistic is the number of positive Walsh averages."""

    def positive(values):
        walsh = [a + b for i, a in enumerate(values) for b in values[i:]]
        return sum((w > 0) + (w == 0) / 2 for w in walsh)

    observed = positive(differences)
    all_of_them = [
        positive([sign * d for sign, d in zip(signs, differences, strict=True)])
        for signs in product((1, -1), repeat=len(differences))
    ]
    tails = sum(v <= observed for v in all_of_them), sum(v >= observed for v in all_of_them)
    return min(1, 2 * min(tails) / len(all_of_them))


@pytest.mark.parametrize("n", [1, 4, 8])
def test_signed_rank_is_exact_with_ties_and_zeros(n):
    """Against every choice of signs."""
    rng = random.Random(n)
    for _ in range(20):
        differences = [float(rng.randint(-2, 3)) for _ in range(n)]

        assert signed_rank(differences, ALPHA).p == pytest.approx(enumerated_signed_rank(differences))


def test_equal_values_are_no_evidence():
    """Where all are the same, nothing is claimed: neither exact nor approximated."""
    for n in (5, 70):
        assert rank_sum([1.0] * n, [1.0] * n, ALPHA).p == 1
        assert signed_rank([0.0] * n, ALPHA).p == 1


@pytest.mark.parametrize(
    ("m", "n", "claims"), [(4, 5, False), (5, 5, True), (3, 8, False), (3, 10, True), (1, 100, False)]
)
def test_the_fewest_runs_that_can_claim_at_99_percent(m, n, claims):
    """5 + 5 and 3 + 10 can, fewer cannot: then there is no interval either."""
    found = rank_sum([100.0 + i for i in range(m)], [10.0 + i for i in range(n)], ALPHA)

    assert found.excludes_zero is claims
    assert (found.p <= ALPHA) is claims
    assert (found.low is None) is not claims


@pytest.mark.parametrize(("n", "claims"), [(7, False), (8, True)])
def test_the_fewest_pairs_that_can_claim_at_99_percent(n, claims):
    assert signed_rank([1.0 + i / 100 for i in range(n)], ALPHA).excludes_zero is claims


@pytest.mark.parametrize("n", [5, 8, 12, 30, 61])
def test_test_and_interval_say_the_same(n):
    """Without ties the interval excludes zero exactly where p is at most alpha; paired and unpaired."""
    rng = random.Random(n)
    for _ in range(60):
        shift = rng.uniform(0, 3) / n**0.5
        baseline, optimized = [[rng.gauss(mean, 1) for _ in range(n)] for mean in (0, shift)]
        differences = [b - a for a, b in zip(baseline, optimized, strict=True)]
        for found in (rank_sum(baseline, optimized, ALPHA), signed_rank(differences, ALPHA)):
            assert found.excludes_zero is (found.p <= ALPHA)


def test_the_interval_covers_the_true_shift():
    """In at least 99 % of 1,000 samples, also of a skewed distribution."""
    rng = random.Random(1)
    covered = 0
    for _ in range(1000):
        baseline = [rng.expovariate(1) for _ in range(6)]
        optimized = [0.5 + rng.expovariate(1) for _ in range(7)]
        found = rank_sum(baseline, optimized, ALPHA)
        covered += found.low <= 0.5 <= found.high

    assert covered >= 985
