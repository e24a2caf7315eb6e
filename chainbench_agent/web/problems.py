"""Answers every error with a problem document (RFC 9457) that says what to do.

400 not JSON, or not HTTP   404, 405 no such call, or run   409 does not fit the state   413 too long
415 not declared as JSON   417, 501, 505 HTTP that is not spoken here (web/parser_errors.py)
422 JSON that is not the right thing   500 a bug   503 the collector failed, or the store
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Sequence

from flask import Flask, Response, current_app, request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json
from werkzeug.exceptions import HTTPException

from chainbench_agent.errors import AgentError, InputError, NoRun, RunActive, StoreError, UnknownRun
from chainbench_agent.runs.event_listeners import NoEvents, NoPlace
from chainbench_agent.settings.near_miss import nearest
from chainbench_agent.web.http_framing import MEDIA_TYPE, document
from chainbench_agent.web.parser_errors import REFUSED, explained

NO_DESCRIPTOR_REMEDY = "try again; if it lasts, raise the agent's limit (LimitNOFILE=)"
EVENTS_REMEDY = "start the agent with --events, on a machine where it measures with eBPF"
LISTENERS_REMEDY = "end one of them, or share one listener: each occupies a thread of the agent"
LONGEST_NAME = 100
JSON_REMEDY = "send a JSON object with the header Content-Type: application/json"

log = logging.getLogger(__name__)


class BadBody(Exception):  # noqa: N818 - a problem of the request, not an error of the program
    """A body that does not fit the call's `model`; `cause` is the error of its validation."""

    def __init__(self, model: type[BaseModel], cause: ValidationError, raw: bytes = b"") -> None:
        super().__init__(str(cause))
        self.raw = raw
        self.model = model
        self.errors = cause.errors(include_url=False, include_input=False)


def problem(status: int, detail: str, remedy: str = "", errors: list[dict[str, str]] | None = None) -> Response:
    """`remedy` and `errors` are left out when empty."""
    body = json.dumps(document(status, detail, remedy, errors), ensure_ascii=False)
    return Response(f"{body}\n", status, content_type=MEDIA_TYPE)


def install(app: Flask) -> None:
    """Register a handler for each kind of exception; Flask uses the most specific one."""
    app.register_error_handler(RunActive, lambda error: problem(409, str(error), "POST /stop ends it"))
    app.register_error_handler(NoRun, lambda error: problem(409, str(error), "POST /start begins one"))
    app.register_error_handler(UnknownRun, lambda error: problem(404, str(error), "GET /runs lists the stored runs"))
    app.register_error_handler(
        StoreError, lambda error: problem(503, str(error), "GET /status shows the store's state")
    )
    app.register_error_handler(NoEvents, lambda error: problem(404, str(error), EVENTS_REMEDY))
    app.register_error_handler(NoPlace, lambda error: problem(503, str(error), LISTENERS_REMEDY))
    app.register_error_handler(InputError, _bad_input)
    app.register_error_handler(AgentError, _collector_failed)
    app.register_error_handler(BadBody, _bad_body)
    for refused in REFUSED:  # the parser reads a body in chunks when the application asks for it
        app.register_error_handler(refused, lambda error: problem(*explained(error)))
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _bug)


def _collector_failed(error: AgentError) -> Response:
    return problem(503, str(error), "GET /status and `chainbench-agent doctor` say more")


def _bad_input(error: InputError) -> Response:
    said = {"field": error.field, "message": error.sentence, **({"remedy": error.remedy} if error.remedy else {})}
    return problem(422, f"{error.field}: {error.sentence}", errors=[said])


def _bug(error: Exception) -> Response:
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return problem(503, f"the agent has no descriptor left: {error.strerror}", NO_DESCRIPTOR_REMEDY)
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return problem(500, "the agent has a bug", "see the agent's log for the details")


def _bad_body(error: BadBody) -> Response:
    first = error.errors[0]
    if first["type"] == "json_invalid":
        return problem(400, f"the body is not valid JSON: {first['ctx']['error']}", JSON_REMEDY)
    if not first["loc"]:
        return problem(422, "the body is JSON, but not an object", JSON_REMEDY)
    sent = from_json(error.raw) if error.raw else {}
    strangers = [name for name in sent if name not in error.model.model_fields]
    errors = [_field_error(error.model, details, strangers) for details in error.errors]
    return problem(422, "; ".join(f"{e['field']}: {e['message']}" for e in errors), errors=errors)


def _field_error(model: type[BaseModel], details: ErrorDetails, strangers: Sequence[str]) -> dict[str, str]:
    name = str(details["loc"][0])
    message = "is missing" if details["type"] == "missing" else details["msg"]
    if details["type"] == "missing" and (misspelt := nearest(name, strangers)):
        message += f", perhaps {misspelt[:LONGEST_NAME]} is meant to be it"
    remedy = details.get("ctx", {}).get("remedy") or f"send it as {model.model_fields[name].description}"
    return {"field": name, "message": message[0].lower() + message[1:], "remedy": remedy}


def _http(error: HTTPException) -> Response:
    """Answer what Flask and Werkzeug refuse; their headers (Allow) stay."""
    match error.code:
        case 404:
            answer = problem(404, f"there is no {request.path} here", _calls())
        case 405:
            answer = problem(405, f"{request.path} does not take {request.method}", _calls())
        case 413:
            limit = f"the body is longer than {request.max_content_length} bytes"
            answer = problem(413, limit, "send only the fields of this call")
        case 415:
            answer = problem(415, "the body is not declared as JSON", JSON_REMEDY)
        case code:
            answer = problem(code or 500, error.description or "")
    for name, value in error.get_headers():
        if name not in {"Content-Type", "Content-Length"}:
            answer.headers[name] = value
    return answer


def _calls() -> str:
    calls = [
        f"{method} {rule.rule}"
        for rule in current_app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    ]
    return f"the calls are {', '.join(calls)}"
