"""Declares what an output format of evidence has: a name, a media type, and a way to render runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chainbench_agent.evidence.model import Evidence


class Format(Protocol):
    """Renders the evidence of one run, or of several next to each other."""

    @property
    def name(self) -> str:
        """The key in FORMATS."""

    @property
    def media_type(self) -> str: ...

    def render(self, runs: Sequence[Evidence]) -> str: ...
