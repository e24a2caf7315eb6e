"""The page lists missed goals, and nothing else."""

from bench.numbers import Figure, Row, percentile, shown


def figure(median):
    return Figure(median, median - 1, median + 1, 3)


def test_a_figure_has_its_spread():
    """The median and the extremes of what was measured."""
    assert Figure.of([5.0, 3.0, 7.0]) == Figure(5.0, 3.0, 7.0, 3)


def test_an_interval_holds_the_median_and_no_outlier():
    """One wild round in 23 does not widen it to itself; the same values give the same interval."""
    values = [1.0 + 0.01 * (i % 5) for i in range(22)] + [50.0]

    found = Figure.with_interval(values)

    assert found.low <= found.median <= found.high < 2
    assert found == Figure.with_interval(values)


def test_percentiles_are_values_that_occurred():
    """The 99th percentile of 100 values is the last but one."""
    assert percentile(range(1, 101), 99) == 99
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([7.0], 1) == 7.0


def test_reached():
    """At most what was asked, and less than all others."""
    assert Row("s", "w", "ns", figure(30), 30, {"other": figure(31)}, below_peers=True).misses == ()
    assert Row("s", "w", "ns", figure(1e9)).misses == ()  # nothing was asked


def test_missed():
    """By how much, and against whom; and whether the one's lowest is below the other's highest."""
    theirs = {"slow": figure(40), "fast": figure(25), "as fast": Figure(30.5, 29, 32, 5)}
    row = Row("s", "w", "ns", figure(31), 30, theirs, below_peers=True)

    assert row.misses == (
        "31.0 ns, where the goal was 30.0",
        "not below fast: 31.0 against 25.0 ns",
        "not below as fast: 31.0 against 30.5 ns, within the spread",
    )


def test_numbers_are_shown_with_three_digits():
    """Roughly three; thousands are separated by commas."""
    shown_as = {0.0: "0", 1.2345: "1.23", 23.45: "23.4", 2345.6: "2,346", -2345.6: "-2,346"}
    assert {value: shown(value) for value in shown_as} == shown_as
