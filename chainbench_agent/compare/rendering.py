"""A format of a comparison: its name, and the function that renders it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chainbench_agent.compare.build import Compared


@dataclass(frozen=True, slots=True)
class Format:
    """`render` is pure, and its text ends with a line feed."""

    name: str
    media_type: str
    help: str
    render: Callable[[Compared], str]
