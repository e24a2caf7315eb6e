import pytest

from chainbench_agent.compare.model import Because
from chainbench_agent.compare.phrases import bar, because_text, number, signed


@pytest.mark.parametrize(
    ("value", "text"), [(-1234.56, "−1,234.6"), (2, "+2.0"), (0.04, "0.0"), (-0.04, "0.0"), (-0.05, "−0.1")]
)
def test_a_change_has_a_sign_unless_it_is_shown_as_zero(value, text):
    assert signed(value) == text


@pytest.mark.parametrize(("value", "text"), [(120, "120"), (0.25, "0.2"), (1234.5, "1,234"), (3.0, "3")])
def test_a_count_has_as_many_digits_as_mean_something(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0, ""), (1 / 16, "▌"), (0.5, "████"), (1, "████████"), (1.5, "████████"), (-1, "")]
)
def test_a_bar_is_drawn_in_eighths(share, text):
    assert bar(share, width=8) == text


def test_fewer_and_faster_or_more_and_slower():
    """By the sign of each part."""
    common = {"metric": "m", "text": "fsync", "baseline": 2, "optimized": 1, "in_every_run": False}

    assert because_text(Because(**common)) == "fsync 2 → 1"
    assert because_text(Because(**common, fewer_ms=-1.0, slower_ms=-2.0)) == (
        "fsync 2 → 1: −1.0 ms for fewer, −2.0 ms for faster ones"
    )
    assert because_text(Because(**common, fewer_ms=1.0, slower_ms=2.0)) == (
        "fsync 2 → 1: +1.0 ms for more, +2.0 ms for slower ones"
    )
