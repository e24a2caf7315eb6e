"""The routes: each is one call into the runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from flask import Flask, Response, abort, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from chainbench_agent.catalog.selection import Selection
from chainbench_agent.runs.lifecycle import Runs
from chainbench_agent.web.caller import caller
from chainbench_agent.web.ignored_fields import note_body, note_fields
from chainbench_agent.web.operation import operation
from chainbench_agent.web.problems import JSON_REMEDY, BadBody, problem
from chainbench_agent.web.request_models import ReportRequest, StartRequest
from chainbench_agent.web.response_models import EvidenceAnswer, Reported, Started, Status, Stopped
from chainbench_agent.web.status import backend_json, status_json, timestamp

Metrics = Callable[[str], tuple[bytes | Sequence[bytes], str]]
"""The Accept header → the exposition, whole or in parts, and its content type."""

EXPOSITIONS = ("text/plain", "application/openmetrics-text")

Body = TypeVar("Body", bound=BaseModel)


class Api:
    """Answers requests, from any number of threads."""

    def __init__(self, runs: Runs, metrics: Metrics, default: Selection) -> None:
        self._runs = runs
        self._metrics = metrics
        self._default = default

    def add_to(self, app: Flask) -> None:
        app.add_url_rule("/start", "start", self.start, methods=["POST"])
        app.add_url_rule("/stop", "stop", self.stop, methods=["POST"])
        app.add_url_rule("/status", "status", self.status)
        app.add_url_rule("/report", "report", self.report, methods=["POST"])
        app.add_url_rule("/report", "evidence", self.evidence)
        app.add_url_rule("/metrics", "metrics", self.metrics)

    @operation("Begin a run", body=StartRequest, answer=Started, problems=(409, 422))
    def start(self) -> ResponseReturnValue:
        """Of the whole machine, of a process with all its descendants (`pid`), or of a `cgroup`."""
        collector = self._runs.status().collector
        body = _body(StartRequest, collector.loaded)
        asked_by = None if body.target.kind == "machine" else caller()  # looks through /proc
        wanted = body.run_request(collector.loaded, self._default, asked_by)
        active = self._runs.start(wanted)
        return {
            "status": "started",
            "run_id": active.id,
            **wanted.labels.model_dump(),
            "machine": self._runs.machine,
            "started_at": timestamp(active.started_at),
            "target": wanted.target.model_dump(exclude_none=True),
            "probes": wanted.selection.probes,
            "sample_interval": wanted.selection.sample_interval,
            **backend_json(collector),
        }

    @operation("End the run", answer=Stopped, problems=(409,))
    def stop(self) -> ResponseReturnValue:
        """The answer is its evidence; `not_kept` says why it is not in the store, where it is meant to be."""
        note_body()
        evidence = self._runs.stop()
        why_not = self._runs.why_not_stored(evidence.run.id)
        return {**evidence.as_json(), **({"not_kept": why_not} if why_not else {})}

    @operation("Return whether a run is active, and what can be measured", answer=Status)
    def status(self) -> ResponseReturnValue:
        """With the reason for everything that cannot."""
        return status_json(self._runs.status(), self._runs.machine)

    @operation("Take what the runner measured", body=ReportRequest, answer=Reported, problems=(422,))
    def report(self) -> ResponseReturnValue:
        """It need not belong to a run; it is in /metrics."""
        self._runs.report(_body(ReportRequest).report)
        return {"status": "metrics_reported"}

    @operation("The latest evidence", answer=EvidenceAnswer, problems=(404,))
    def evidence(self) -> ResponseReturnValue:
        """Of the run that finished last."""
        latest = self._runs.latest()
        if latest is None:
            return problem(404, "no run has finished yet", "finish a run first: POST /start, then POST /stop")
        return {"evidence": latest.as_json()}

    @operation("For Prometheus", media_types=EXPOSITIONS)
    def metrics(self) -> ResponseReturnValue:
        """The latest numbers of each label set."""
        exposition, content_type = self._metrics(request.headers.get("Accept", ""))
        answer = Response(exposition, content_type=content_type)
        answer.vary.add("Accept")
        return answer


def _body(model: type[Body], context: Any = None) -> Body:
    raw = request.get_data(cache=False)
    if not raw:
        abort(problem(400, "the body is empty", JSON_REMEDY))
    if len(raw) == request.max_content_length:
        abort(413)  # a body without Content-Length is cut there
    try:
        found = model.model_validate_json(raw, context=context)
    except ValidationError as error:
        raise BadBody(model, error, raw) from None
    note_fields(list(from_json(raw)), model.model_fields)
    return found
