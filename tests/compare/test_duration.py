import random
from datetime import UTC, datetime, timedelta

import pytest

from chainbench_agent.compare.duration import (
    alternating_pairs,
    band_percent,
    measure_change,
    what_is_certain,
    what_would_tell,
)
from chainbench_agent.compare.run_set import ControlRun


def timed(order, ms):
    """Runs in the given order, of A and of B; `ms`: letter → duration of its k-th run."""
    runs = {"A": [], "B": []}
    for second, letter in enumerate(order):
        started = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
        runs[letter].append(ControlRun(started, ms(letter, len(runs[letter]))))
    return runs["A"], runs["B"]


def halved(letter, k):
    return (100.0 if letter == "A" else 50.0) + k


@pytest.mark.parametrize("order", ["AB", "BA", "ABBA", "ABAB", "BAABABBA"])
def test_runs_that_alternate_form_pairs(order):
    """Each consecutive two are one of each side, whichever is first."""
    baseline, optimized = timed(order, halved)

    assert alternating_pairs(baseline, optimized) == list(zip(baseline, optimized, strict=True))


@pytest.mark.parametrize("order", ["AABB", "A", "ABBBAA", "ABA"])
def test_runs_that_do_not_alternate_form_no_pairs(order):
    assert alternating_pairs(*timed(order, halved)) is None


def test_pairs_are_found_by_the_start_and_not_by_the_position():
    baseline, optimized = timed("ABBAAB", halved)

    assert alternating_pairs(baseline[::-1], optimized) == list(zip(baseline, optimized, strict=True))


def test_eight_pairs_are_compared_within_the_pairs():
    """A slow phase of the machine that both runs of a pair share is no noise then."""
    noise = [random.Random(1).uniform(1, 3) for _ in range(8)]
    change = measure_change(*timed("ABBA" * 4, lambda letter, k: noise[k] * (100 if letter == "A" else 98)))

    assert (change.method, change.pairs, change.alternated) == ("signed-rank", 8, True)
    assert change.pct == pytest.approx(-2)
    assert change.p == 2 / 2**8


def test_seven_pairs_are_compared_as_sides():
    """A signed-rank test of seven pairs can claim nothing at 99 %."""
    change = measure_change(*timed("AB" * 7, halved))

    assert (change.method, change.pairs, change.alternated) == ("rank-sum", None, True)
    assert change.high_pct < -45


def test_a_change_in_percent_and_ms():
    """The ratio of the logarithms' shift, and the difference of the middle halves."""
    change = measure_change(*timed("A" * 8 + "B" * 8, lambda letter, _: {"A": 100.0, "B": 80.0}[letter]))

    assert change.ratio == pytest.approx(0.8)
    assert change.pct == pytest.approx(-20)
    assert change.ms == pytest.approx(-20)
    assert change.low_ms == pytest.approx(-20) == change.high_ms
    assert change.separated


def test_too_few_runs_have_no_bounds():
    change = measure_change(*timed("ABAB", halved))

    assert change.low_pct is change.high_pct is change.low_ms is change.high_ms is None
    assert what_is_certain(change) == ""
    assert what_would_tell(change, 2) == "at least 5 runs a side, or 8 in alternating pairs"


def test_blocks_have_a_wider_band():
    assert band_percent(measure_change(*timed("AABB", halved))) == 5
    assert band_percent(measure_change(*timed("ABBA", halved))) == 1


def certain(low, high):
    change = measure_change(*timed("ABBA", halved))
    return what_is_certain(change.model_copy(update={"low_pct": low, "high_pct": high}))


def test_what_is_certain_is_said_in_words():
    assert certain(-5.8, 2.0) == "at most 5.8 % faster, at most 2.0 % slower"
    assert certain(-5.8, -2.0) == "at least 2.0 %, at most 5.8 % faster"
    assert certain(1.0, 3.0) == "at least 1.0 %, at most 3.0 % slower"


def test_the_suggested_number_of_runs_shows_the_change():
    """By simulation: it is found in 80 % of the tries, as it was planned; at least in 70 %, at most in 95 %."""
    rng = random.Random(7)

    def noisy(factor):
        return lambda letter, _: (factor if letter == "B" else 1) * rng.lognormvariate(4, 0.05)

    suggestions = [what_would_tell(measure_change(*timed("ABBA" * 10, noisy(1))), 20) for _ in range(21)]
    suggested = sorted(int(text.split("about ")[1].split()[0]) for text in suggestions)[10]
    found = 0
    for _ in range(200):
        change = measure_change(*timed(("ABBA" * suggested)[: 2 * suggested], noisy(1.05)))
        found += change.low_pct > 0

    assert 0.7 <= found / 200 <= 0.95
