"""The page says what was asked, what was found and what is missed."""

import pytest

from bench import reasons, report
from bench.numbers import Figure, Row
from bench.scale import Series

FOUND = Figure(31.0, 29.0, 33.0, 3)
ROW = Row(
    "A section", "an event", "ns", FOUND, 30, {"other": Figure(40.0, 40.0, 40.0, 3)}, below_peers=True, note="n | m"
)


@pytest.fixture(autouse=True)
def reason(monkeypatch):
    monkeypatch.setitem(reasons.REASONS, "an event", "It waits for the clock.")


def test_a_row_and_its_miss():
    """By how much and why in words, the numbers in a table with their spread; a bar splits no cell."""
    page = report.render([ROW], [], rounds=3)

    assert "- **an event**: 31.0 ns, where the goal was 30.0. It waits for the clock." in page
    assert "| an event | ≤ 30.0 ns, less than the others | 31.0 ns (29.0 … 33.0) ✗ | other: 40.0 ns | n / m |" in page


def test_nothing_missed():
    """Is said too."""
    page = report.render([Row("A section", "an event", "ns", FOUND, 100)], [], rounds=3)

    assert "## Missed goals\n\nNothing.\n" in page
    assert "**31.0 ns (29.0 … 33.0)**" in page


def test_a_chart_has_its_numbers_and_its_shape():
    """The reason is next to the missed goal."""
    series = Series("rate", "Cost by rate", "calls/s", "%", "linear", [(1000, 0.03), (10000, 0.3)])

    page = report.render([ROW], [series], rounds=3)

    assert "![Cost by rate](performance/rate.svg)" in page
    assert "linear" in page
    assert "1,000: 0.03, 10,000: 0.3" in page


def test_the_terminal_shows_a_miss_in_red():
    """And no red where nothing is missed."""
    assert "\033[31m" in report.line(ROW)
    assert "\033" not in report.line(Row("A section", "an event", "ns", FOUND, 100))


def test_the_machine_is_described_not_named():
    """Its kind only."""
    assert "CPUs" in report.machine()
    assert report.kernel().replace(".", "").isdigit()
