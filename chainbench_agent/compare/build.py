"""Runs of two sides → the comparison.  Pure: the same runs give the same answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chainbench_agent.compare.conditions import compare_conditions
from chainbench_agent.compare.duration import measure_change, what_is_certain, what_would_tell
from chainbench_agent.compare.explain import explain
from chainbench_agent.compare.judge import findings, judge, not_comparable_sentence, sentence, verdict_of
from chainbench_agent.compare.model import Change, Comparison, Control, Environment
from chainbench_agent.compare.run_set import ControlRun, MeasuredRun, median_run, run_set, side, typical_ms
from chainbench_agent.compare.verdict import Reason, Verdict
from chainbench_agent.compare.watching import watching_cost
from chainbench_agent.errors import InputError
from chainbench_agent.evidence.model import Evidence

Runs = Sequence[MeasuredRun]


@dataclass(frozen=True, slots=True)
class ControlRuns:
    """The same commands without the agent, made in the same alternation as the measured runs."""

    baseline: Sequence[ControlRun]
    optimized: Sequence[ControlRun]


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison with the evidence of the run at the median of each side, which some formats show."""

    comparison: Comparison
    baseline: Evidence
    optimized: Evidence


def compare(
    baseline: Iterable[MeasuredRun],
    optimized: Iterable[MeasuredRun],
    control: ControlRuns | None = None,
    *,
    allow_different: bool = False,
) -> Compared:
    """InputError for sides that are empty or share a run.  `allow_different`: see conditions.py."""
    left, right = run_set("baseline", baseline), run_set("optimized", optimized)
    if shared := {run.id for run in left} & {run.id for run in right}:
        raise InputError("optimized", f"run {min(shared)} is on both sides")
    if control and not (control.baseline and control.optimized):
        raise InputError("control", "control runs are needed of both sides")
    environment = compare_conditions(left, right, allow_different=allow_different)
    unusable = environment.differences and not allow_different
    comparison = (
        _not_comparable(left, right, environment) if unusable else _comparison(left, right, environment, control)
    )
    return Compared(comparison, median_run(left).evidence, median_run(right).evidence)


def _not_comparable(left: Runs, right: Runs, environment: Environment) -> Comparison:
    return Comparison(
        verdict=Verdict.NOT_COMPARABLE,
        reasons=findings([Reason.NOT_COMPARABLE]),
        sentence=not_comparable_sentence(environment),
        baseline=side(left),
        optimized=side(right),
        environment=environment,
    )


def _comparison(left: Runs, right: Runs, environment: Environment, control: ControlRuns | None) -> Comparison:
    watched = measure_change(left, right)
    change = measure_change(control.baseline, control.optimized) if control else watched
    explanation = explain(left, right)
    cost = watching_cost(left, right, watched)
    reasons = judge(change, watched, cost, explanation.waterfall)
    verdict = verdict_of(reasons, change)
    runs = min(len(control.baseline), len(control.optimized)) if control else min(len(left), len(right))
    return Comparison(
        verdict=verdict,
        reasons=findings(reasons),
        sentence=sentence(verdict, reasons, change, explanation.waterfall),
        certain=what_is_certain(change),
        would_tell=what_would_tell(change, runs) if verdict is Verdict.INCONCLUSIVE else "",
        change=change,
        baseline=side(left),
        optimized=side(right),
        waterfall=explanation.waterfall,
        threads=explanation.threads,
        metrics=explanation.metrics,
        environment=environment,
        cost=cost,
        control=_control(control, watched) if control else None,
        unavailable=explanation.unavailable,
    )


def _control(control: ControlRuns, watched: Change) -> Control:
    return Control(
        baseline_ms=tuple(run.duration_ms for run in control.baseline),
        optimized_ms=tuple(run.duration_ms for run in control.optimized),
        typical_baseline_ms=typical_ms(control.baseline),
        typical_optimized_ms=typical_ms(control.optimized),
        watched=watched,
    )
