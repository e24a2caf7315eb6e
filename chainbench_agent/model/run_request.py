"""A run as a client asks for it: made once, where the request comes in, and passed down to the kernel side."""

from __future__ import annotations

from dataclasses import dataclass, field

from chainbench_agent.catalog.selection import EVERYTHING, Selection
from chainbench_agent.evidence.model import Labels, Target

MAX_DURATION_S = 3600.0
"""How long a run lasts at most, unless its request says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """By default a run of the whole machine, with every module that is loaded, for at most an hour."""

    labels: Labels = field(default_factory=Labels)
    target: Target = field(default_factory=Target)
    caller: int | None = None
    """The process that asks, in whose namespaces the target's pid or path is meant; None if it is unknown."""
    selection: Selection = EVERYTHING
    longest_s: float = MAX_DURATION_S
