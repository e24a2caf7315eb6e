"""The change of the duration: the one test that the verdict rests on, what is certain, and what would tell more."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, exp, expm1, log, log1p
from statistics import NormalDist

from chainbench_agent.compare.model import Change
from chainbench_agent.compare.run_set import Timed, typical_ms
from chainbench_agent.compare.statistics.shift import Shift, rank_sum, signed_rank
from chainbench_agent.compare.verdict import BAND_ALTERNATED_PERCENT, BAND_BLOCKS_PERCENT, CONFIDENCE_PERCENT

ALPHA = 1 - Fraction(CONFIDENCE_PERCENT, 100)
FEWEST_PAIRS = 8
"""With fewer pairs a signed-rank test can claim nothing at 99 %."""

FEWEST_RUNS = 5
POWER = 0.8
"""How often the stated number of runs would show a change of that size."""

MOST_RUNS_SUGGESTED = 10_000


def alternating_pairs(baseline: Sequence[Timed], optimized: Sequence[Timed]) -> list[tuple[Timed, Timed]] | None:
    """(baseline, optimized) of each two runs that started after each other; None where a pair is of one side only."""
    by_start = [(run.started_at, index, run) for index, side in enumerate((baseline, optimized)) for run in side]
    by_start.sort(key=lambda item: item[:2])
    if len(by_start) % 2:
        return None
    pairs = []
    for first, second in zip(by_start[::2], by_start[1::2], strict=True):
        if first[1] == second[1]:
            return None
        pairs.append((first[2], second[2]) if first[1] == 0 else (second[2], first[2]))
    return pairs


def measure_change(baseline: Sequence[Timed], optimized: Sequence[Timed]) -> Change:
    """The estimate with its interval, on logarithms of the durations, because noise is relative."""
    pairs = alternating_pairs(baseline, optimized)
    left, right = [[log(run.duration_ms) for run in side] for side in (baseline, optimized)]
    if pairs and len(pairs) >= FEWEST_PAIRS:
        shift = signed_rank([log(b.duration_ms) - log(a.duration_ms) for a, b in pairs], ALPHA)
    else:
        shift = rank_sum(left, right, ALPHA)
    before_ms, after_ms = typical_ms(baseline), typical_ms(optimized)
    low, high = _relative(shift)
    return Change(
        ratio=exp(shift.estimate),
        pct=100 * expm1(shift.estimate),
        low_pct=None if low is None else 100 * low,
        high_pct=None if high is None else 100 * high,
        ms=after_ms - before_ms,
        low_ms=None if low is None else before_ms * low,
        high_ms=None if high is None else before_ms * high,
        confidence=CONFIDENCE_PERCENT,
        p=shift.p,
        method=shift.method,
        alternated=pairs is not None,
        pairs=len(pairs) if pairs and shift.method == "signed-rank" else None,
        separated=max(right) < min(left) or max(left) < min(right),
    )


def _relative(shift: Shift) -> tuple[float | None, float | None]:
    if shift.low is None or shift.high is None:
        return None, None
    return expm1(shift.low), expm1(shift.high)


def band_percent(change: Change) -> float:
    """Smaller changes are not claimed."""
    return BAND_ALTERNATED_PERCENT if change.alternated else BAND_BLOCKS_PERCENT


def includes_zero(change: Change) -> bool:
    """Whether no change is as plausible; with ties also the exact p has to be small."""
    if change.low_pct is None or change.high_pct is None:
        return True
    return change.low_pct <= 0 <= change.high_pct or change.p > ALPHA


def what_is_certain(change: Change) -> str:
    """The bounds of the change as words."""
    low, high = change.low_pct, change.high_pct
    if low is None or high is None:
        return ""
    if low < 0 < high:
        return f"at most {-low:.1f} % faster, at most {high:.1f} % slower"
    least, most, word = (-high, -low, "faster") if high <= 0 else (low, high, "slower")
    return f"at least {least:.1f} %, at most {most:.1f} % {word}"


def what_would_tell(change: Change, runs: int) -> str:
    """How many runs a side show a change of 5 % or 1 %, at the noise that these have.  `runs`: a side."""
    if change.low_pct is None or change.high_pct is None:
        return f"at least {FEWEST_RUNS} runs a side, or {FEWEST_PAIRS} in alternating pairs"
    if change.low_pct == change.high_pct:
        return ""
    needed = [(percent, _runs_needed(change, runs, percent)) for percent in (5, 1)]
    return "at this noise " + ", ".join(
        f"{percent} % takes about {number} runs a side" if percent == 5 else f"{percent} % {number}"
        for percent, number in needed
    )


def _runs_needed(change: Change, runs: int, percent: float) -> str:
    """From the width of the interval, which shrinks with the square root of the number of runs."""
    normal = NormalDist()
    z = -normal.inv_cdf(float(ALPHA) / 2)
    width = log1p((change.high_pct or 0) / 100) - log1p((change.low_pct or 0) / 100)
    needed = runs * ((z + normal.inv_cdf(POWER)) * width / (2 * z) / log1p(percent / 100)) ** 2
    fewest = FEWEST_PAIRS if change.method == "signed-rank" else FEWEST_RUNS
    if needed > MOST_RUNS_SUGGESTED:
        return f"more than {MOST_RUNS_SUGGESTED:,}"
    return str(max(fewest, ceil(needed)))
