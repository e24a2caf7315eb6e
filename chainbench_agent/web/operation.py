"""What a route's function says of itself: the API document (web/openapi.py) is made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

View = TypeVar("View", bound=Callable[..., Any])

JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call.  Its description is the function's docstring."""

    summary: str
    answer: type[BaseModel] | None = None
    """The JSON that it answers with; None where it is none, or nothing (204)."""
    media_types: tuple[str, ...] = (JSON,)
    status: int = 200
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    problems: tuple[int, ...] = ()
    """Those of this call, beside those that every call has."""


def operation(summary: str, **said: Any) -> Callable[[View], View]:
    """Say what a view does; see Operation."""

    def note(view: View) -> View:
        view.__dict__["operation"] = Operation(summary=summary, **said)
        return view

    return note
