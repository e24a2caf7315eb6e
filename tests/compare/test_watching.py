import pytest

from chainbench_agent.compare.duration import measure_change
from chainbench_agent.compare.watching import cost_sentence, is_doubtful, watching_cost, watching_ms

COST = {"cpu_percent": 1.0, "bpf_ns": 30_000_000, "events": 1, "ns_per_event": 1.0, "programs": [], "modules": {}}


def run(made, number, on_cpu, **cost):
    return made.run(number, {"on_cpu": on_cpu}, evidence={"cost": COST | cost} if cost else {})


def test_the_targets_part_counts_where_it_is_known(made):
    """The programs also run for other processes: 20 % of 100 ms are the target's, of 30 ms of all programs."""
    assert watching_ms(run(made, 1, 100.0, target_cpu_percent=20.0)) == 20
    assert watching_ms(run(made, 1, 100.0, events=1)) == 30
    assert watching_ms(run(made, 1, 100.0)) is None


def compared(made, *costs_ms):
    """Sides of 100 and 50 ms, with these costs."""
    sides = [
        [run(made, 10 * i + k, wall, bpf_ns=int(ms * 1e6)) for k in range(4)]
        for i, (wall, ms) in enumerate(zip((100.0, 50.0), costs_ms, strict=True))
    ]
    change = measure_change(*sides)
    return watching_cost(*sides, change), change


@pytest.mark.parametrize(("before_ms", "doubtful"), [(25.0, False), (27.0, True)])
def test_more_than_half_of_the_change_is_doubtful(made, before_ms, doubtful):
    cost, change = compared(made, before_ms, 1.0)

    assert cost.share == pytest.approx((before_ms - 1) / 50)
    assert is_doubtful(cost, change) is doubtful


def test_a_cost_that_works_against_the_change_is_not_mentioned(made):
    """The faster side was watched more: the change is rather larger than it looks."""
    cost, _ = compared(made, 1.0, 5.0)

    assert cost.share < 0
    assert cost_sentence(cost) == ""


def test_a_cost_that_one_run_lacks_is_not_guessed(made):
    left = [run(made, 1, 100.0, bpf_ns=1), run(made, 2, 100.0)]
    right = [run(made, 3, 50.0, bpf_ns=1), run(made, 4, 50.0, bpf_ns=1)]

    assert watching_cost(left, right, measure_change(left, right)) is None
    assert not is_doubtful(None, measure_change(left, right))
    assert cost_sentence(None) == ""
