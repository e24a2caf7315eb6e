"""How often identical programs are called different.  Seeded, so that the answer is the same each time."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from chainbench_agent.compare.duration import band_percent, includes_zero, measure_change
from chainbench_agent.compare.run_set import ControlRun

TRIES = 1000

NOISES = {
    "normal": lambda rng: 100 + rng.gauss(0, 2),
    "log-normal": lambda rng: 100 * rng.lognormvariate(0, 0.05),
    "outliers": lambda rng: 100 + rng.gauss(0, 1) + (30 if rng.random() < 0.1 else 0),
    "two modes": lambda rng: (100 if rng.random() < 0.5 else 110) + rng.gauss(0, 0.5),
    "clock ticks": lambda rng: float(round(100 + rng.gauss(0, 2))),
}


def claims(durations, order):
    sides = {"A": [], "B": []}
    for second, (letter, ms) in enumerate(zip(order, durations, strict=True)):
        sides[letter].append(ControlRun(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second), ms))
    change = measure_change(sides["A"], sides["B"])
    return not includes_zero(change) and abs(change.pct) >= band_percent(change)


def balanced(rng, pairs):
    """Pairs in random order, half of them with each side first."""
    first = ["AB", "BA"] * (pairs // 2) + ["AB"] * (pairs % 2)
    rng.shuffle(first)
    return "".join(first)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("n", [5, 10])
def test_independent_noise_is_seldom_called_a_change(noise, n):
    """At most 2 % of 1,000 tries at a nominal 1 %, whatever the shape of the noise."""
    rng = random.Random(f"{noise} {n}")
    wrong = sum(claims([NOISES[noise](rng) for _ in range(2 * n)], balanced(rng, n)) for _ in range(TRIES))

    assert wrong <= 0.02 * TRIES


def drifting(rng, n):
    """Like the machines that were measured: each run resembles the one before (autocorrelation 0.6)."""
    level, durations = rng.gauss(0, 1), []
    for _ in range(n):
        level = 0.6 * level + rng.gauss(0, 0.8)
        durations.append(100 + 4 * level)
    return durations


def test_a_drift_is_no_change_where_the_runs_alternate():
    """At most 2 % of 1,000 tries; two blocks of the same runs are wrong at least three times as often."""
    rng = random.Random(3)
    alternated = blocks = 0
    for _ in range(TRIES):
        durations = drifting(rng, 20)
        alternated += claims(durations, balanced(rng, 10))
        blocks += claims(durations, "A" * 10 + "B" * 10)

    assert alternated <= 0.02 * TRIES
    assert blocks >= 3 * alternated


def test_real_changes_are_found():
    """5 % with 10 pairs and 2 % of noise: in at least 19 of 20 tries."""
    rng = random.Random(4)
    found = 0
    for _ in range(100):
        order = balanced(rng, 10)
        found += claims([(100 if x == "A" else 95) * rng.lognormvariate(0, 0.02) for x in order], order)

    assert found >= 95
