import random

import pytest

from chainbench_agent.compare.explain import explain


def fsyncs(made, count, mean_us, seed, **more):
    rng = random.Random(seed)

    def run(i):
        latency = made.distribution(count, mean_us * rng.lognormvariate(0, 0.02))
        sections = {"io": {"fsync_latency_us": latency}, "syscall_counts": {"total": 1000, **more}}
        return made.run(i, {"on_cpu": 50.0 + rng.random(), "disk": latency["sum_us"] / 1e3}, sections=sections)

    return run


def line(explanation, name):
    return next(line for line in explanation.waterfall.lines if line.line == name)


def test_fewer_and_slower_add_up_to_the_change(made):
    """120 fsyncs of 600 µs → 1 of 1,000 µs: -71.4 ms for fewer, +0.4 ms for a slower one."""
    found = line(explain(*made.sides(fsyncs(made, 120, 600, 1), fsyncs(made, 1, 1000, 2))), "disk")
    (because,) = found.because

    assert (because.metric, because.baseline, because.optimized) == ("io.fsync_latency_us", 120, 1)
    assert because.in_every_run
    assert because.fewer_ms == pytest.approx(-71.4, rel=0.03)
    assert because.slower_ms == pytest.approx(0.4, rel=0.1)
    assert because.fewer_ms + because.slower_ms == pytest.approx(found.delta_ms, abs=1e-5)


def test_as_many_but_slower(made):
    (because,) = line(explain(*made.sides(fsyncs(made, 9, 600, 1), fsyncs(made, 9, 900, 2))), "disk").because

    assert because.fewer_ms == 0
    assert because.slower_ms == pytest.approx(2.7, rel=0.1)


def test_a_metric_that_only_varies_explains_nothing(made):
    """Identical programs: in none of 20 comparisons a supporting metric is named."""
    named = []
    for seed in range(20):
        found = explain(*made.sides(fsyncs(made, 9, 600, seed), fsyncs(made, 9, 600, 1000 + seed)))
        named += line(found, "disk").because

    assert len(named) <= 1


def test_a_counter_with_one_value_a_side_needs_no_test(made):
    """As a hint among all metrics; a system call that was not made counts as 0."""
    found = explain(*made.sides(fsyncs(made, 9, 600, 1, futex=120), fsyncs(made, 9, 600, 2)))
    (futex,) = [metric for metric in found.metrics if metric.name == "syscall_counts.futex"]

    assert (futex.baseline, futex.optimized, futex.p, futex.tier) == (120, 0, None, "exploratory")


def test_an_unavailable_metric_is_not_zero(made):
    """Its absence on one side is no change."""

    def run(i, section):
        return made.run(i, {"on_cpu": 10.0}, sections={"memory": section})

    lacks = {"unavailable": {"kmalloc_count": "no such tracepoint"}}
    found = explain(*made.sides(lambda i: run(i, {"kmalloc_count": 5}), lambda i: run(i, lacks)))

    assert found.metrics == ()


def test_hints_need_eight_runs_a_side(made):
    left, right = made.sides(fsyncs(made, 9, 600, 1, futex=120), fsyncs(made, 9, 600, 2))

    assert any(metric.tier == "exploratory" for metric in explain(left[:8], right[:8]).metrics)
    assert not any(metric.tier == "exploratory" for metric in explain(left[:7], right).metrics)


def test_of_200_metrics_that_only_vary_hardly_any_is_listed(made):
    """20 comparisons of identical programs list at most 2 % of all metrics that varied."""
    listed = 0
    for seed in range(20):
        rng = random.Random(seed)

        def run(i, rng=rng):
            counts = {f"call{k}": int(rng.lognormvariate(5, 0.3)) for k in range(200)}
            return made.run(i, {"on_cpu": 10.0}, sections={"syscall_counts": counts})

        listed += len(explain(*made.sides(run, run)).metrics)

    assert listed <= 0.02 * 20 * 200


def test_two_runs_have_nothing_that_is_so_in_every_run(made):
    """One run a side cannot show that a count is always the same."""
    left, right = made.sides(fsyncs(made, 120, 600, 1), fsyncs(made, 1, 1000, 2))

    assert line(explain(left[:1], right[:1]), "disk").because == ()
