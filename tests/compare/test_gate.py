import random

import pytest

from chainbench_agent.compare.build import compare
from chainbench_agent.compare.gate import exit_code, slower_percent
from chainbench_agent.errors import InputError


def compared(made, ratio, noise=0.01, **run):
    rng = random.Random(1)

    def side(ms):
        return lambda i: made.run(i, {"on_cpu": ms * rng.lognormvariate(0, noise)}, **run)

    return compare(*made.sides(side(100.0), side(100.0 * ratio))).comparison


def test_faster_and_inconclusive_pass(made):
    assert exit_code(compared(made, 0.8)) == exit_code(compared(made, 1)) == 0


def test_slower_fails(made):
    assert exit_code(compared(made, 1.2)) == 1


def test_the_bound_decides_and_not_the_estimate(made):
    """About 20 % slower, with noise: 20 % is not certain, and 10 % is."""
    found = compared(made, 1.22, noise=0.05)

    assert found.change.pct > 20 > found.change.low_pct > 10
    assert exit_code(found, slower=20) == 0
    assert exit_code(found, slower=10) == 1


def test_not_comparable_is_no_pass(made):
    assert exit_code(compared(made, 1, ended_by="shutdown")) == 2


def test_inconclusive_fails_where_an_answer_is_required(made):
    assert exit_code(compared(made, 1), require_conclusive=True) == 3
    assert exit_code(compared(made, 0.8), require_conclusive=True) == 0
    assert exit_code(compared(made, 1.05), slower=50, require_conclusive=True) == 0


@pytest.mark.parametrize(("text", "percent"), [("slower", 0), ("slower:5%", 5), ("slower:2.5", 2.5)])
def test_a_condition(text, percent):
    assert slower_percent(text) == percent


@pytest.mark.parametrize("text", ["", "faster", "slower:", "slower:-5%", "slower:five", "slower:5%%"])
def test_what_is_no_condition(text):
    with pytest.raises(InputError, match="write slower:5%"):
        slower_percent(text)
