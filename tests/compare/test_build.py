import random

import pytest

from chainbench_agent.compare.build import ControlRuns, compare
from chainbench_agent.compare.run_set import ControlRun
from chainbench_agent.errors import InputError


def noisy(made, ms, seed=1, noise=0.03, line="disk", **run):
    rng = random.Random(seed)
    return lambda i: made.run(i, {"on_cpu": 10.0, line: (ms - 10) * rng.lognormvariate(0, noise)}, **run)


def compared(made, before, after, *, order="ABBA", **options):
    left, right = made.sides(noisy(made, before), noisy(made, after, 2), order)
    return compare(left, right, **options).comparison


def reasons(comparison):
    return [str(finding.reason) for finding in comparison.reasons]


def test_faster(made):
    found = compared(made, 100, 50)

    assert (found.verdict, reasons(found)) == ("faster", [])
    assert found.change.low_pct < -50 < found.change.high_pct < -45
    assert found.sentence.startswith("The optimized side is 49.8 % faster (99 %: 48.7 to 51.2 %), by 50.0 ms; ")
    assert found.sentence.endswith("100 % of the main thread's difference is: blocked: disk.")
    assert found.would_tell == ""


def test_slower(made):
    """The same with the sides exchanged: the ratio is inverted."""
    found, inverse = compared(made, 50, 100), compared(made, 100, 50)

    assert found.verdict == "slower"
    assert found.change.ratio == pytest.approx(1 / inverse.change.ratio, rel=0.02)


def test_no_change(made):
    found = compared(made, 100, 100)

    assert (found.verdict, reasons(found)) == ("inconclusive", ["interval_includes_zero"])
    assert "at most" in found.certain
    assert found.would_tell.startswith("at this noise 5 % takes about ")


def test_too_few_runs(made):
    left, right = made.sides(noisy(made, 100), noisy(made, 50, 2))
    found = compare(left[:4], right[:4]).comparison

    assert (found.verdict, reasons(found)) == ("inconclusive", ["too_few_runs"])
    assert "low_pct" not in found.as_json()["change"]


@pytest.mark.parametrize(
    ("after", "order", "verdict", "why"),
    [
        (96.0, "blocks", "inconclusive", ["below_resolution", "not_alternated"]),
        (94.0, "blocks", "faster", ["not_alternated"]),
        (99.2, "ABBA", "inconclusive", ["below_resolution"]),
        (98.0, "ABBA", "faster", []),
    ],
)
def test_the_order_of_the_runs_decides_how_small_a_change_is_claimed(made, after, order, verdict, why):
    """5 % for two blocks, 1 % for runs that alternate, however certain the difference is."""
    left, right = made.sides(noisy(made, 100, noise=1e-4), noisy(made, after, 2, noise=1e-4), order)
    found = compare(left, right).comparison

    assert (found.verdict, reasons(found)) == (verdict, why)


def cost(ms):
    """A cost without a target's share: the time of all programs counts."""
    numbers = {"cpu_percent": 1.0, "events": 1, "ns_per_event": 1.0, "programs": [], "modules": {}}
    return {"cost": {**numbers, "bpf_ns": int(ms * 1e6)}}


@pytest.mark.parametrize(("saved_ms", "verdict"), [(20, "faster"), (30, "inconclusive")])
def test_a_change_that_may_be_the_watching_is_not_claimed(made, saved_ms, verdict):
    """More than half of 50 ms."""
    left, right = made.sides(
        noisy(made, 100, evidence=cost(saved_ms + 1)), noisy(made, 50, 2, evidence=cost(1)), "ABBA"
    )
    found = compare(left, right).comparison

    assert found.verdict == verdict
    assert found.cost.delta_ms == pytest.approx(-saved_ms)
    assert ("cost_of_watching" in reasons(found)) is (verdict == "inconclusive")


def control(made, before, after):
    sides = made.sides(noisy(made, before), noisy(made, after, 2))
    return ControlRuns(*([ControlRun(run.started_at, run.duration_ms) for run in side] for side in sides))


def test_control_runs_give_the_verdict(made):
    """And the watched runs the explanation; both changes are in the answer."""
    left, right = made.sides(noisy(made, 150, evidence=cost(60)), noisy(made, 50, 2, evidence=cost(1)))
    found = compare(left, right, control(made, 100, 50)).comparison

    assert (found.verdict, reasons(found)) == ("faster", [])
    assert found.change.ms == pytest.approx(-50, abs=3)
    assert found.control.watched.ms == pytest.approx(-100, abs=3) == found.waterfall.total_ms


def test_control_runs_can_contradict_the_watched_ones(made):
    left, right = made.sides(noisy(made, 150), noisy(made, 50, 2))

    assert compare(left, right, control(made, 50, 50)).comparison.verdict == "inconclusive"


def test_notes_do_not_prevent_a_claim(made):
    """A busy machine, and time that the ledger does not explain."""

    def run(i, unexplained, disk):
        return made.run(i, {"on_cpu": 500.0 + i / 10, "runnable": 200.0, "unexplained": unexplained, "disk": disk})

    left, right = made.sides(lambda i: run(i, 14.0, 20.0), lambda i: run(i, 0.0, 1.0))
    found = compare(left, right).comparison

    assert (found.verdict, reasons(found)) == ("faster", ["loss", "busy_machine"])
    assert [finding.decides for finding in found.reasons] == [False, False]


def test_sides_that_make_no_comparison(made):
    left, right = made.sides(noisy(made, 100), noisy(made, 50))
    with pytest.raises(InputError, match="optimized: there is no run on this side"):
        compare(left, [])
    with pytest.raises(InputError, match="run run-0000 is on both sides"):
        compare(left, [*right, left[0]])
    with pytest.raises(InputError, match="control runs are needed of both sides"):
        compare(left, right, ControlRuns([], []))


def test_the_evidence_of_the_run_at_the_median_comes_with_it(made):
    left, right = made.sides(noisy(made, 100), noisy(made, 50))
    found = compare(left, right)

    assert found.baseline.run.id == found.comparison.baseline.median_run
    assert sorted(run.duration_ms for run in left)[5] == next(
        run.duration_ms for run in left if run.id == found.comparison.baseline.median_run
    )


def test_the_same_runs_give_the_same_answer(made):
    """In whatever order they come: nothing is drawn by lot."""
    left, right = made.sides(noisy(made, 100), noisy(made, 95, 2))

    assert compare(left, right) == compare(left[::-1], right[::-1])


def test_without_a_ledger_the_duration_is_compared_all_the_same(made):
    left, right = made.sides(*(noisy(made, ms, target={"kind": "machine"}) for ms in (100, 50)))
    found = compare(left, right).comparison

    assert found.verdict == "faster"
    assert found.waterfall is None
    assert "no main thread" in found.unavailable["waterfall"]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"environment": {"kernel": "6.12", "cpus": 2}}, "kernel"),
        ({"environment": {"kernel": "6.1", "cpus": 4}}, "cpus"),
        ({"environment": {"kernel": "6.1", "cpus": 2, "governor": "powersave"}}, "governor"),
        ({"machine": "other"}, "machine"),
        ({"probes": ["cpu"]}, "modules"),
        ({"sample_interval": 64}, "sample_interval"),
        ({"target": {"kind": "machine"}}, "target"),
        ({"evidence": {"schema_version": 3}}, "schema_version"),
        ({"evidence": {"available": False, "source": "mock"}}, "data"),
        ({"ended_by": "max_duration"}, "ended"),
    ],
)
def test_runs_under_other_conditions_are_not_compared(made, change, name):
    """Also if it is one run of many that differs; `allow_different` compares them, and still says so."""
    left, right = made.sides(noisy(made, 100), noisy(made, 50))
    right[3] = noisy(made, 50, **change)(6)
    refused, allowed = compare(left, right).comparison, compare(left, right, allow_different=True).comparison

    assert (refused.verdict, reasons(refused)) == ("not_comparable", ["not_comparable"])
    assert [difference.name for difference in refused.environment.differences] == [name]
    assert refused.change is None
    assert name in refused.sentence
    assert allowed.verdict == "faster"
    assert allowed.environment.differences == refused.environment.differences


@pytest.mark.parametrize("change", [{"evidence": {"available": False, "source": "mock"}}, {"ended_by": "shutdown"}])
def test_sides_that_are_unusable_alike_are_not_compared(made, change):
    """Mock data with mock data: made-up numbers show nothing."""
    left, right = made.sides(*(noisy(made, ms, **change) for ms in (100, 50)))

    assert compare(left, right).comparison.verdict == "not_comparable"
