"""Makes the API document (OpenAPI 3.1) from the routes, their operations and the models that they take and return."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from typing import Any

from flask import Flask, current_app, render_template
from flask.typing import ResponseReturnValue
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from chainbench_agent.evidence.model import Evidence
from chainbench_agent.evidence.schema import DISTRIBUTION, complete
from chainbench_agent.host.environment import VERSION
from chainbench_agent.web.access import LOOKS
from chainbench_agent.web.http_framing import MEDIA_TYPE
from chainbench_agent.web.operation import JSON, Operation, operation
from chainbench_agent.web.response_models import ApiDocument, Problem

EVERYWHERE = (400, 401, 403, 408, 417, 421, 431, 500, 501, 503, 505)
"""Statuses of problems that any call may have, from access, parser_errors, problems and server/slow_client_guard."""

WITH_A_BODY = (413, 415)

_REF = "#/components/schemas/{model}"

Json = dict[str, Any]


class DocumentRoutes:
    """The document as JSON, and as a page."""

    def add_to(self, app: Flask) -> None:
        app.add_url_rule("/openapi.json", "openapi", self.document)
        app.add_url_rule("/docs", "docs", self.page)

    @operation("This API, for programs", answer=ApiDocument)
    def document(self) -> ResponseReturnValue:
        """As OpenAPI 3.1."""
        return document(current_app)

    @operation("This API, for people", media_types=("text/html",))
    def page(self) -> ResponseReturnValue:
        """The same as a page."""
        return render_template("docs.html", api=document(current_app), resolve=_resolve)


def document(app: Flask) -> Json:
    """TypeError for a route without @operation."""
    calls = sorted(_calls(app), key=lambda call: call[0])
    models = {model.__name__: model for _, _, view in calls for model in _models(_said(view))}
    # answers are described as a client reads them: a field that may be left out is not required
    _, definitions = models_json_schema(
        [(model, "validation") for _, model in sorted(models.items())], ref_template=_REF
    )
    schemas = definitions["$defs"]
    for name in (name for name, model in models.items() if issubclass(model, Evidence)):
        complete(schemas[name], DISTRIBUTION)
    paths: Json = {}
    for path, method, view in calls:
        paths.setdefault(_template(path), {})[method.lower()] = _call(path, method, view)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "chainbench-agent",
            "version": VERSION,
            "description": "Kernel-level evidence for benchmarks: start a run, run the benchmark, stop, and read why.",
            "license": {"name": "Apache-2.0 AND GPL-2.0-only", "identifier": "Apache-2.0 AND GPL-2.0-only"},
        },
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Where the agent has a --token-file."}
            },
        },
    }


def _calls(app: Flask) -> Iterator[tuple[str, str, Any]]:
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield rule.rule, method, app.view_functions[rule.endpoint]


def _said(view: Any) -> Operation:
    said = getattr(view, "operation", None)
    if not isinstance(said, Operation):
        raise TypeError(f"{view!r} is a route, and no @operation says what it does")
    return said


def _models(said: Operation) -> Iterator[type[BaseModel]]:
    yield from (model for model in (said.body, said.query, said.answer, Problem, Evidence) if model)


def _call(path: str, method: str, view: Any) -> Json:
    said = _said(view)
    problems = {*EVERYWHERE, *said.problems, *(WITH_A_BODY if said.body else () if method in LOOKS else (415,))}
    body = {"requestBody": {"required": True, "content": _content(said.body, (JSON,))}} if said.body else {}
    parameters = [*_in_path(path), *_in_query(said.query)]
    return {
        "operationId": f"{method.lower()}_{re.sub(r'[^a-z]+', '_', path.lower()).strip('_')}",
        "summary": said.summary,
        "description": inspect.cleandoc(view.__doc__ or ""),
        **({"parameters": parameters} if parameters else {}),
        **body,
        "responses": {
            str(said.status): _answer(said),
            **{
                str(status): {"description": HTTPStatus(status).phrase, "content": _content(Problem, (MEDIA_TYPE,))}
                for status in sorted(problems)
            },
        },
    }


def _answer(said: Operation) -> Json:
    content = {} if said.status == HTTPStatus.NO_CONTENT else {"content": _content(said.answer, said.media_types)}
    return {"description": HTTPStatus(said.status).phrase, **content}


def _content(model: type[BaseModel] | None, media_types: tuple[str, ...]) -> Json:
    schema = {"$ref": _REF.format(model=model.__name__)} if model else {"type": "string"}
    return {media_type: {"schema": schema} for media_type in media_types}


def _template(path: str) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path)


def _in_path(path: str) -> list[Json]:
    names = re.findall(r"<(?:\w+:)?(\w+)>", path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _in_query(model: type[BaseModel] | None) -> list[Json]:
    properties = model.model_json_schema(ref_template=_REF)["properties"] if model else {}
    return [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]


@cache
def _name_of(reference: str) -> str:
    return reference.rpartition("/")[2]


def _resolve(schema: Json) -> str:
    """A schema in a few words, for the page."""
    if "$ref" in schema:
        return _name_of(schema["$ref"])
    if "const" in schema:
        return repr(schema["const"])
    if "enum" in schema:
        return " | ".join(map(repr, schema["enum"]))
    if "anyOf" in schema:
        return " | ".join(map(_resolve, schema["anyOf"]))
    if schema.get("type") == "array":
        return f"[{_resolve(schema.get('items', {}))}]"
    return str(schema.get("type", "any"))
