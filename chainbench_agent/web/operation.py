"""Declares what a route does, and turns the model that it returns into its JSON answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, Protocol, runtime_checkable

from flask.typing import ResponseReturnValue
from pydantic import BaseModel

Arguments = ParamSpec("Arguments")

JSON = "application/json"


class Answer(BaseModel):
    """The answer of a route.  Its JSON has the fields that were given, in the order in which they are declared."""

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_unset=True)


@runtime_checkable
class HasJson(Protocol):
    """An Answer, or evidence."""

    def as_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call; web/openapi.py makes the API document from it.  Its description is the function's docstring."""

    summary: str
    answer: type[BaseModel] | None = None
    """The model that the route returns; None for other media types, and for an empty answer (204)."""
    media_types: tuple[str, ...] = (JSON,)
    status: int = 200
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    problems: tuple[int, ...] = ()
    """The statuses of this call's problems, in addition to those that every call has."""


def operation(
    summary: str, **declared: Any
) -> Callable[[Callable[Arguments, Any]], Callable[Arguments, ResponseReturnValue]]:
    """Declare an Operation."""

    def declare(view: Callable[Arguments, Any]) -> Callable[Arguments, ResponseReturnValue]:
        @wraps(view)
        def answered(*arguments: Arguments.args, **named: Arguments.kwargs) -> ResponseReturnValue:
            answer: Any = view(*arguments, **named)
            return answer.as_json() if isinstance(answer, HasJson) else answer

        answered.__dict__["operation"] = Operation(summary=summary, **declared)
        return answered

    return declare
