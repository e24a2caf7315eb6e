"""Why a target is missed, where that is known.  Read only where one is."""

from __future__ import annotations

REASONS: dict[str, str] = {}
"""What the row begins with → a sentence."""


def why(what: str) -> str:
    return next((reason for beginning, reason in REASONS.items() if what.startswith(beginning)), "")
