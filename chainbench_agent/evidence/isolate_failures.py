"""Handles modules one by one, so that a mistake in the figures of one costs only that module.  Pure."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from typing import TypeVar

from chainbench_agent.catalog import Module

Answer = TypeVar("Answer")


def one_by_one(
    modules: Iterable[Module], work: Callable[[Module], Answer]
) -> tuple[dict[Module, Answer], dict[str, str]]:
    """The answer of `work` for each of `modules`; and module → why there is no answer, for the others."""
    found, failed = {}, {}
    for module in modules:
        try:
            found[module] = work(module)
        except Exception as error:  # noqa: BLE001 - a mistake may raise anything
            failed[module.name] = _reason(error)
    return found, failed


def _reason(error: Exception) -> str:
    """The reason, with the place in the code: a reader of the evidence has no other trace of it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{last.filename.rpartition('/')[2]}, line {last.lineno}"
    return f"its figures could not be derived: {type(error).__name__}: {error} ({place})"
