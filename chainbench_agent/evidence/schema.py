"""The evidence as JSON Schema: the fixed parts from their models, each section from what its module declares.

Within one version it only grows: see docs/evidence.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from chainbench_agent.catalog import Counter, Derived, Distribution, Metric, Module, Procfs, Table
from chainbench_agent.evidence.distribution import IF_ANY, WHOLE_SECTION
from chainbench_agent.evidence.metric_keys import reported_key
from chainbench_agent.evidence.model import SCHEMA_VERSION, Evidence
from chainbench_agent.probes import CATALOG

Json = dict[str, Any]

INTEGER: Json = {"type": "integer"}
NUMBER: Json = {"type": "number"}
TEXT: Json = {"type": "string"}


def _object(properties: Json, required: tuple[str, ...] = ()) -> Json:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def _mapping(of: Json) -> Json:
    return {"type": "object", "additionalProperties": of}


def _list(of: Json) -> Json:
    return {"type": "array", "items": of}


_ALWAYS: Json = {
    "histogram": _list(_object({"bucket_us": NUMBER, "count": INTEGER}, ("bucket_us", "count"))),
    "count": INTEGER,
    "sum_us": NUMBER,
}
DISTRIBUTION: Json = _object({**_ALWAYS, **dict.fromkeys(IF_ANY, NUMBER)}, tuple(_ALWAYS))
"""A histogram; without observations it has no extremes, mean and quantiles."""

_LIST_VALUES: Json = {
    "count": {"description": "A count.", **INTEGER},
    "mean": {"description": "A mean of counts.", **NUMBER},
    "ms": {"description": "Milliseconds.", **NUMBER},
    "edges": {"type": "array"},
}
"""The schema of a Derived list's value, by its name."""

_EXACTNESS: Json = {"sampled_percent": NUMBER, "standard_error_ms": NUMBER, "split_of": TEXT}
_WAIT = _object(
    {"reason": TEXT, "syscall": TEXT, "ms": NUMBER, "file": TEXT, **_EXACTNESS}, ("reason", "syscall", "ms")
)
_ACCOUNT: Json = {
    **dict.fromkeys(("wall_ms", "on_cpu_ms", "runnable_ms", "blocked_ms", "unexplained_ms"), NUMBER),
    "blocked": _list(_object({"category": TEXT, "ms": NUMBER, "reasons": _list(_WAIT)}, ("category", "ms", "reasons"))),
}
_THREAD: Json = {"tid": INTEGER, "pid": INTEGER, "command": TEXT, **_ACCOUNT}
_IDLE: Json = {"threads": INTEGER, **_ACCOUNT}
_WHOLE: Json = {
    **_ACCOUNT,
    "threads": _list(_object(_THREAD, tuple(_THREAD))),
    "threads_not_shown": INTEGER,
    "idle_threads": _object(_IDLE, tuple(_IDLE)),
}
LEDGER = _object(_WHOLE, tuple(key for key in _WHOLE if key != "idle_threads"))
"""The ledger; evidence of earlier agents has no `idle_threads`."""

SAMPLING = _object({"interval": INTEGER, "zero_means_below": INTEGER, "standard_error": _mapping({})})


def document() -> Json:
    """The schema for programs that read evidence, which must ignore keys that it does not name."""
    schema = Evidence.model_json_schema() | {"description": "What was measured in a run."}
    definitions = {name: _as_written(one) for name, one in schema.pop("$defs").items()}
    complete(schema, {"$ref": "#/$defs/Distribution"})
    schema["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    for model in _models(Evidence):
        (schema if model is Evidence else definitions[model.__name__])["required"] = list(_always(model))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_as_written(schema),
        "$defs": {**definitions, "Distribution": DISTRIBUTION},
    }


def complete(schema: Json, distribution: Json) -> None:
    """Put the sections into the schema of Evidence, next to the fixed parts, as in the JSON.

    `distribution`: the schema of a distribution that is a key of a section: DISTRIBUTION, or a reference to it.
    """
    properties = schema["properties"]
    del properties["sections"]
    schema["required"] = [name for name in schema["required"] if name != "sections"]
    schema["additionalProperties"] = True
    properties["ledger"] = {"description": "With a target: where all the time of its threads went.", **LEDGER}
    for module in CATALOG:
        properties[module.section_key] = section(module, distribution)


def section(module: Module, distribution: Json = DISTRIBUTION) -> Json:
    """The schema of a module's section; a metric that is unavailable is absent from it."""
    properties: Json = {}
    inline: Json = {}
    for metric in module.reported:
        match metric:
            case Distribution() if reported_key(metric) == WHOLE_SECTION:
                properties |= DISTRIBUTION["properties"]
            case Derived(inline=True):
                inline = {"additionalProperties": INTEGER}
            case _:
                properties[reported_key(metric)] = {"description": metric.help, **_value(metric, distribution)}
    figures = {reported_key(metric): _value(metric, distribution) for metric in module.per_process}
    if figures:
        properties["top_processes"] = _list(_object({"pid": INTEGER, "command": TEXT, **figures}, ("pid", "command")))
        properties["other_processes"] = _object(figures)
    properties |= {"sources": _mapping(TEXT), "unavailable": _mapping(TEXT), "scope": _mapping({"const": "machine"})}
    return {"description": module.question, **_object({**properties, "sampling": SAMPLING}, ("sources",)), **inline}


def _value(metric: Metric, distribution: Json) -> Json:
    number = NUMBER if metric.name.endswith("_ns") else INTEGER
    match metric:
        case Distribution():
            return distribution
        case Counter() | Procfs():
            return number
        case Table():
            return _mapping(number)
        case Derived(label=label, label_help=said, value=value) if value:
            key = {"description": said, **(INTEGER if label == "pid" else TEXT)}
            return _list(
                {**_object({label: key, value: _LIST_VALUES.get(value, {})}, (value,)), "additionalProperties": {}}
            )
        case Derived(label=label) if label:
            return _mapping(NUMBER)
    return NUMBER


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model, and the models of its fields."""
    yield model
    for field in model.model_fields.values():
        inside = (field.annotation, *getattr(field.annotation, "__args__", ()))
        parts = (one for each in inside for one in (each, *getattr(each, "__args__", ())))
        for part in dict.fromkeys(parts):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _models(part)


def _always(model: type[BaseModel]) -> Iterator[str]:
    """The keys that a model always has in JSON; a value that is None is left out."""
    for name, field in model.model_fields.items():
        if name != "sections" and field.get_default(call_default_factory=True) is not None:
            yield field.alias or name


def _as_written(schema: Any) -> Any:
    """Drop the titles that pydantic makes up, null, which the JSON never has, and the ban on keys of later agents."""
    if isinstance(schema, list):
        return [_as_written(one) for one in schema if one != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    dropped = {"title": str, "default": object, "additionalProperties": bool}
    written = {key: _as_written(one) for key, one in schema.items() if not isinstance(one, dropped.get(key, ()))}
    (only,) = written["anyOf"] if len(written.get("anyOf", ())) == 1 else (None,)
    return {**{key: one for key, one in written.items() if key != "anyOf"}, **only} if only else written
