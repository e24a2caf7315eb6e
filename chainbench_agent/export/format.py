"""What an output format of evidence is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chainbench_agent.evidence.model import Evidence


class Format(Protocol):
    """Renders the evidence of one run, or of several next to each other."""

    @property
    def name(self) -> str:
        """By which it is asked for."""

    @property
    def media_type(self) -> str: ...

    def render(self, runs: Sequence[Evidence]) -> str: ...
