"""Names the fields and parameters of a request that were ignored: a misspelt one silently changes what is measured.

They are not refused, because existing runners send more than this version knows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection

from flask import Flask, Response, current_app, g, request
from pydantic import Field

from chainbench_agent.settings.near_miss import nearest
from chainbench_agent.web.operation import Answer, Operation

MOST_NAMED = 20
"""Further ones are counted."""

LONGEST_NAME = 100

log = logging.getLogger(__name__)


class MayIgnore(Answer):
    """An answer to a request of which something may be ignored; both lists are left out when nothing was."""

    ignored: list[str] = Field(default=[], description="Fields and parameters of the request that are not known here.")
    warnings: list[str] = Field(
        default=[], description="A sentence about each of them, with the name that may be meant."
    )


def install(app: Flask) -> None:
    app.before_request(_note_query)
    app.after_request(_add_to_answer)


def note_fields(sent: Collection[str], known: Collection[str]) -> list[str]:
    """Note and return the body's fields that are not `known`."""
    strangers = [name for name in sent if name not in known]
    for name in strangers:
        meant = nearest(name, known)
        _note(name, f"is not known and was ignored{f': did you mean {meant}?' if meant else ''}", near=bool(meant))
    return strangers


def note_body() -> None:
    """Note what was sent to a call that takes no fields; the call goes on, whatever it is."""
    try:
        raw = request.get_data(cache=False)
        sent = json.loads(raw) if raw else {}
    except Exception:  # noqa: BLE001 - too long, no JSON, not even chunks: all the same here
        sent = None
    if isinstance(sent, dict):
        note_fields(list(sent), ())
    else:
        _note("body", f"is not a JSON object, and was ignored: {request.path} takes no fields", near=False)


def _note_query() -> None:
    called = _operation()
    if called is None or called.query is not None:  # that refuses what it does not know
        return
    fields = called.body.model_fields if called.body else {}
    for name in request.args:
        if name in fields:
            _note(name, "was sent in the query and ignored: send it in the body", near=True)
        else:
            _note(name, f"is no parameter of {request.path} and was ignored", near=bool(nearest(name, fields)))


def _note(name: str, what: str, *, near: bool) -> None:
    shown = name[:LONGEST_NAME]
    noted: dict[str, str] = g.setdefault("ignored_fields", {})
    if len(noted) < MOST_NAMED:
        noted[shown] = f"{shown} {what}"
        log.log(logging.WARNING if near else logging.INFO, "%s %s: %s %s", request.method, request.path, shown, what)
    else:
        g.more_ignored = g.get("more_ignored", 0) + 1


def _add_to_answer(answer: Response) -> Response:
    noted: dict[str, str] = g.get("ignored_fields", {})
    called = _operation()
    says_so = called is not None and called.answer is not None and "ignored" in called.answer.model_fields
    if noted and says_so and answer.status_code == called.status:  # type: ignore[union-attr]  # says_so
        more = g.get("more_ignored", 0)
        warnings = [*noted.values(), *([f"{more} more were ignored"] if more else [])]
        said = {**json.loads(answer.get_data()), "ignored": list(noted), "warnings": warnings}
        answer.set_data(current_app.json.dumps(said, separators=(",", ":")) + "\n")
    return answer


def _operation() -> Operation | None:
    view = current_app.view_functions.get(request.endpoint or "")
    said = getattr(view, "operation", None)
    return said if isinstance(said, Operation) else None
