"""The closed sets of what a comparison can say: verdicts, the reasons for them, and a sentence for each.

A change is claimed if its interval excludes no change and it is large enough for the order in which the runs were made.
"""

from __future__ import annotations

from enum import StrEnum

CONFIDENCE_PERCENT = 99
BAND_ALTERNATED_PERCENT = 1.0
BAND_BLOCKS_PERCENT = 5.0
"""Smaller changes are not claimed.  Identical runs in two blocks differ by some percent because the machine drifts."""


class Verdict(StrEnum):
    """The claim about the optimized side."""

    FASTER = "faster"
    SLOWER = "slower"
    INCONCLUSIVE = "inconclusive"
    NOT_COMPARABLE = "not_comparable"


class Reason(StrEnum):
    """Why nothing is claimed, or what to consider about a claim."""

    TOO_FEW_RUNS = "too_few_runs"
    INTERVAL_INCLUDES_ZERO = "interval_includes_zero"
    BELOW_RESOLUTION = "below_resolution"
    NOT_ALTERNATED = "not_alternated"
    COST_OF_WATCHING = "cost_of_watching"
    LOSS = "loss"
    BUSY_MACHINE = "busy_machine"
    NOT_COMPARABLE = "not_comparable"

    @property
    def decides(self) -> bool:
        """Whether it prevents a claim; the others are notes."""
        return self not in {Reason.NOT_ALTERNATED, Reason.LOSS, Reason.BUSY_MACHINE}

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES = {
    Reason.TOO_FEW_RUNS: (
        f"so few runs can show nothing with {CONFIDENCE_PERCENT} % confidence; "
        "it takes at least 5 a side, or 8 in alternating pairs"
    ),
    Reason.INTERVAL_INCLUDES_ZERO: "the interval includes no change",
    Reason.BELOW_RESOLUTION: (
        f"the change is below the resolution: {BAND_ALTERNATED_PERCENT:g} % when the runs alternate, "
        f"{BAND_BLOCKS_PERCENT:g} % when they do not"
    ),
    Reason.NOT_ALTERNATED: "the runs did not alternate: a drift of the machine would look the same",
    Reason.COST_OF_WATCHING: (
        "more than half of the change may be the cost of watching; add control runs, which are not watched"
    ),
    Reason.LOSS: "the ledger does not explain more than 20 % of the change",
    Reason.BUSY_MACHINE: "the main thread waited for a CPU in more than 20 % of the time: something else was running",
    Reason.NOT_COMPARABLE: "the runs were not measured under the same conditions, or not completely",
}
