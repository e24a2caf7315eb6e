"""Finds the known name that a misspelt one may stand for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most similar to `name`, ignoring case; empty if no name is similar."""
    by_capitals = {one.upper(): one for one in known}
    near = difflib.get_close_matches(name.upper(), list(by_capitals), 1)
    return by_capitals[near[0]] if near else ""
