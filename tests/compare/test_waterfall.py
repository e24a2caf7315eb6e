import random

import pytest

from chainbench_agent.compare.waterfall import threads, waterfall


def noisy(made, seed=1, **means):
    rng = random.Random(seed)
    return lambda i: made.run(i, {line: ms * rng.lognormvariate(0, 0.1) for line, ms in means.items()})


def test_the_lines_add_up_to_the_change_exactly(made):
    """Over the runs that are named, in nanoseconds."""
    left, right = made.sides(noisy(made, disk=50, on_cpu=20, pipe=1), noisy(made, 2, disk=5, on_cpu=25, runnable=9))
    found = waterfall(left, right)
    durations = {run.id: run.duration_ms for run in (*left, *right)}
    means = [sum(durations[i] for i in ids) / len(ids) for ids in (found.baseline_runs, found.optimized_runs)]

    assert sum(line.delta_ms for line in found.lines) == pytest.approx(found.total_ms, abs=1e-9)
    assert found.total_ms == pytest.approx(means[1] - means[0], abs=1e-5)
    assert sum(line.share for line in found.lines) == pytest.approx(1)


def test_the_largest_change_is_first_whatever_its_sign(made):
    left, right = made.sides(noisy(made, disk=50, on_cpu=20), noisy(made, 2, disk=5, on_cpu=120))

    assert [line.line for line in waterfall(left, right).lines][:2] == ["on_cpu", "disk"]


def test_an_idle_worker_is_not_in_the_waterfall(made):
    """Its waits are as long as the run: with 8 of them a sum over threads would name futexes."""

    def run(i, ms):
        return made.run(i, {"on_cpu": ms}, threads=[(100, {"futex/lock": ms})] * 8)

    left, right = made.sides(lambda i: run(i, 300.0), lambda i: run(i, 200.0))

    assert [(line.line, line.delta_ms) for line in waterfall(left, right).lines] == [("on_cpu", -100.0)]


def test_runs_that_the_ledger_does_not_explain_are_left_out(made):
    left, right = made.sides(lambda i: made.run(i, {"on_cpu": 10.0 + i / 100}), lambda i: made.run(i, {"on_cpu": 5.0}))
    odd = made.run(20, {"on_cpu": 9.0, "unexplained": 1.0})
    found = waterfall([*left[:4], odd], right)

    assert odd.id not in found.baseline_runs
    assert {line.line for line in found.lines} == {"on_cpu"}
    assert "unexplained" in waterfall([odd], right)


def test_only_a_process_has_a_main_thread(made):
    machine = [made.run(i, {"on_cpu": 1.0}, target={"kind": "cgroup", "cgroup": "/x"}) for i in range(2)]

    assert "no main thread" in waterfall(machine[:1], machine[1:])


def test_a_line_that_did_not_change_has_an_interval_around_zero(made):
    left, right = made.sides(noisy(made, disk=50, on_cpu=20), noisy(made, 3, disk=5, on_cpu=20))
    lines = {line.line: line for line in waterfall(left, right).lines}

    assert lines["disk"].low_ms < lines["disk"].high_ms < 0
    assert lines["on_cpu"].low_ms < 0 < lines["on_cpu"].high_ms


def test_threads_that_only_waited_are_one_line(made):
    """In the table of all threads, which is not wall-clock time."""

    def run(i, ms):
        return made.run(i, {"on_cpu": ms}, threads=[(100, {"on_cpu": 7.0})], idle=[{"poll": ms}, {"sleep": ms}])

    lines = {line.line: line for line in threads([run(0, 30.0)], [run(1, 20.0)]).lines}

    assert set(lines) == {"on_cpu", "only_waited"}
    assert (lines["on_cpu"].baseline_ms, lines["on_cpu"].delta_ms) == (37.0, -10.0)
    assert (lines["only_waited"].baseline_ms, lines["only_waited"].delta_ms) == (60.0, -20.0)
