import pytest

from chainbench_agent.compare.run_set import median_run, middle_half, run_set, side
from chainbench_agent.errors import InputError


def test_runs_are_ordered_by_their_start(made):
    runs = [made.run(i, {"on_cpu": 10.0 - i}) for i in (2, 0, 1)]

    assert [run.id for run in run_set("baseline", runs)] == ["run-0000", "run-0001", "run-0002"]


@pytest.mark.parametrize(
    ("numbers", "ms", "complaint"),
    [
        ([], 1.0, "baseline: there is no run on this side"),
        ([1, 1], 1.0, "baseline: has a run twice"),
        ([1], 0.0, "baseline: run run-0001 has no duration"),
        (range(101), 1.0, "baseline: has 101 runs; compare at most 100 a side"),
    ],
)
def test_runs_that_make_no_side(made, numbers, ms, complaint):
    with pytest.raises(InputError, match=complaint):
        run_set("baseline", [made.run(i, {"on_cpu": ms}) for i in numbers])


def test_the_duration_is_the_main_threads_wall_clock(made):
    """Not that of the run, which has the agent's own requests in it."""
    run = made.run(1, {"on_cpu": 10.0, "disk": 5.0}, duration_ms=99.0)

    assert (run.duration_ms, run.durations_from) == (15.0, "main_thread")


def test_the_duration_of_a_machine_is_that_of_the_run(made):
    run = made.run(1, {"on_cpu": 10.0}, duration_ms=99.0, target={"kind": "machine"})

    assert (run.duration_ms, run.durations_from) == (99.0, "run")


def test_the_runners_own_duration_is_preferred(made):
    run = made.run(1, {"on_cpu": 10.0}, reported_ms=12.0)

    assert (run.duration_ms, run.durations_from) == (12.0, "reported")


@pytest.mark.parametrize(("n", "left"), [(1, 1), (3, 3), (4, 2), (5, 3), (10, 6), (20, 10)])
def test_the_middle_half_leaves_a_quarter_out_at_each_end(made, n, left):
    durations = [run.duration_ms for run in middle_half([made.run(i, {"on_cpu": 1.0 + i}) for i in range(n)])]

    assert durations == [1.0 + i for i in range(n)][(n - left) // 2 : (n + left) // 2]


def test_a_side_in_short(made):
    """Ids and durations in the order of the start; a label that differs is empty."""
    runs = [made.run(i, {"on_cpu": ms}, commit=f"c{i}") for i, ms in enumerate((40.0, 10.0, 20.0, 1000.0))]
    found = side(runs)

    assert found.durations_ms == (40.0, 10.0, 20.0, 1000.0)
    assert found.durations_from == ("main_thread",)
    assert (found.labels.variant, found.labels.commit) == ("v", "")
    assert found.summary.model_dump() == {"typical_ms": 30.0, "min_ms": 10.0, "median_ms": 30.0, "max_ms": 1000.0}
    assert found.median_run == median_run(runs).id == "run-0000"


def test_a_run_of_which_much_is_unexplained(made):
    """More than 2 %, in either direction."""
    assert made.run(1, {"on_cpu": 98.5, "unexplained": 1.5}).explained
    assert not made.run(1, {"on_cpu": 97.0, "unexplained": 3.0}).explained
    assert not made.run(1, {"on_cpu": 103.0, "unexplained": -3.0}).explained
