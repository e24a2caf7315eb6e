"""Routes that start, stop and show runs: each is one call to Runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from flask import Flask, Response, abort, request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from chainbench_agent.catalog.selection import Selection
from chainbench_agent.evidence.model import Target
from chainbench_agent.runs.lifecycle import Runs
from chainbench_agent.web.caller import caller
from chainbench_agent.web.ignored_fields import note_body, note_fields
from chainbench_agent.web.operation import operation
from chainbench_agent.web.problems import JSON_REMEDY, BadBody, problem
from chainbench_agent.web.request_models import ReportRequest, StartRequest
from chainbench_agent.web.response_models import EvidenceAnswer, Reported, Started, Status, Stopped
from chainbench_agent.web.status import backend_fields, status_of, timestamp

Metrics = Callable[[str], tuple[bytes | Sequence[bytes], str]]
"""Accept header → the exposition, whole or in parts, and its content type."""

EXPOSITIONS = ("text/plain", "application/openmetrics-text")

Body = TypeVar("Body", bound=BaseModel)


class Api:
    """Thread-safe.  `default`: the selection of a run whose request names none."""

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
    def start(self) -> Started:
        """The whole machine is measured, or a process with all its descendants (`pid`), or a `cgroup`."""
        collector = self._runs.status().collector
        body = _body(StartRequest, collector.loaded)
        asked_by = None if body.target.kind == "machine" else caller()  # looks through /proc
        run_request = body.run_request(collector.loaded, self._default, asked_by)
        active = self._runs.start(run_request)
        return Started(
            status="started",
            run_id=active.id,
            **run_request.labels.model_dump(),
            machine=self._runs.machine,
            started_at=timestamp(active.started_at),
            target=Target(**run_request.target.model_dump(exclude_none=True)),
            probes=list(run_request.selection.probes),
            sample_interval=run_request.selection.sample_interval,
            **backend_fields(collector),
        )

    @operation("End the run", answer=Stopped, problems=(409,))
    def stop(self) -> Stopped:
        """The answer is its evidence; `not_kept` says why the run is not in the store although it should be."""
        note_body()
        evidence = self._runs.stop()
        return Stopped.of(evidence, self._runs.why_not_stored(evidence.run.id))

    @operation("Return whether a run is active, and what can be measured", answer=Status)
    def status(self) -> Status:
        """With the reason for everything that cannot be measured."""
        return status_of(self._runs.status(), self._runs.machine)

    @operation("Take what the runner measured", body=ReportRequest, answer=Reported, problems=(422,))
    def report(self) -> Reported:
        """The report need not belong to a run; /metrics shows it."""
        self._runs.report(_body(ReportRequest).report)
        return Reported(status="metrics_reported")

    @operation("The latest evidence", answer=EvidenceAnswer, problems=(404,))
    def evidence(self) -> EvidenceAnswer | Response:
        """The evidence of the run that finished last."""
        latest = self._runs.latest()
        if latest is None:
            return problem(404, "no run has finished yet", "finish a run first: POST /start, then POST /stop")
        return EvidenceAnswer(evidence=latest)

    @operation("For Prometheus", media_types=EXPOSITIONS)
    def metrics(self) -> Response:
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
        abort(413)  # a body without Content-Length is cut at that length
    try:
        found = model.model_validate_json(raw, context=context)
    except ValidationError as error:
        raise BadBody(model, error, raw) from None
    note_fields(list(from_json(raw)), model.model_fields)
    return found
