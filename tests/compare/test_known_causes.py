"""Simulated programs of which the cause of a change is known: is it named first, and with the right amount?"""

import random

import pytest
from simulated_machine import Machine
from simulated_programs import CASES

from chainbench_agent.compare.build import compare
from chainbench_agent.compare.ledger_lines import CHILDREN
from chainbench_agent.compare.waterfall import waterfall

EXPLAINED = [case for case in CASES if not case.needs_wakers]
WAITS_FOR_ITS_THREADS = [case for case in CASES if case.needs_wakers]


def explained(made, case):
    runs = []
    for number, size in enumerate((case.before, case.after)):
        main, threads = Machine().run(case.program(size))
        runs.append(made.run(number, main, threads=threads))
    return waterfall([runs[0]], [runs[1]]), runs[1].duration_ms - runs[0].duration_ms, runs[0].duration_ms


def parts(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


@parts(CASES)
def test_the_lines_add_up_to_the_change_of_the_wall_clock(made, case):
    found, change, _ = explained(made, case)

    assert found.total_ms == pytest.approx(change, abs=1e-4)
    assert sum(line.delta_ms for line in found.lines) == pytest.approx(found.total_ms, abs=1e-9)


@parts(EXPLAINED)
def test_the_cause_is_first_and_within_10_percent(made, case):
    """Where the change does not show in the wall clock, no line has more than 2 % of it."""
    found, change, before = explained(made, case)
    if not case.cause:
        assert max(abs(line.delta_ms) for line in found.lines) <= max(2, 0.02 * before)
        return
    blamed = [line.delta_ms for line in found.lines if line.line.removeprefix(CHILDREN) in case.cause]

    assert found.lines[0].line.removeprefix(CHILDREN) in case.cause
    assert 0.9 <= sum(blamed) / change <= 1.1


@parts(WAITS_FOR_ITS_THREADS)
def test_a_wait_for_its_own_threads_is_named_as_that(made, case):
    """Nothing is invented: what those threads did meanwhile is not known to the main thread."""
    found, change, _ = explained(made, case)

    assert found.lines[0].line == "futex/lock"
    assert found.lines[0].delta_ms == pytest.approx(change, rel=0.1)


def scaled(lines, factor):
    return {line: ms * factor for line, ms in lines.items()}


@parts([case for case in EXPLAINED if case.cause])
def test_noise_hides_no_cause(made, case):
    """20 of 20 tries with 10 + 10 runs, each up to some percent slower or faster: verdict, first line and its size."""
    before, after = (Machine().run(case.program(size)) for size in (case.before, case.after))
    true_ms = sum(after[0].values()) - sum(before[0].values())

    def noisy(simulated, rng):
        def run(number):
            factor = rng.lognormvariate(0, 0.02)
            threads = [(pid, scaled(lines, factor)) for pid, lines in simulated[1]]
            return made.run(number, scaled(simulated[0], factor), threads=threads)

        return run

    for seed in range(20):
        rng = random.Random(seed)
        found = compare(*made.sides(noisy(before, rng), noisy(after, rng))).comparison
        blamed = [line.delta_ms for line in found.waterfall.lines if line.line.removeprefix(CHILDREN) in case.cause]

        assert found.verdict == ("faster" if true_ms < 0 else "slower")
        assert found.waterfall.lines[0].line.removeprefix(CHILDREN) in case.cause
        assert 0.9 <= sum(blamed) / true_ms <= 1.1
