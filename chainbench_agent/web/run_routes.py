"""Routes that list, show and delete stored runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from flask import Flask, request
from flask.typing import ResponseReturnValue
from pydantic import ValidationError

from chainbench_agent.errors import InputError, UnknownRun
from chainbench_agent.runs.lifecycle import Runs
from chainbench_agent.web.operation import operation
from chainbench_agent.web.problems import BadBody
from chainbench_agent.web.request_models import RunsQuery
from chainbench_agent.web.response_models import KeptRun, RunPage, RunSummary


class RunRoutes:
    """Thread-safe."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def add_to(self, app: Flask) -> None:
        app.add_url_rule("/runs", "runs", self.list)
        app.add_url_rule("/runs/<run_id>", "run", self.get)
        app.add_url_rule("/runs/<run_id>", "delete_run", self.delete, methods=["DELETE"])

    @operation("List the stored runs", answer=RunPage, query=RunsQuery, problems=(422, 503))
    def list(self) -> RunPage:
        """The newest come first, without their evidence.  Filters select runs; `next` is the path of the next page."""
        given = _filters()
        query = given.query
        found = self._runs.find(replace(query, limit=query.limit + 1))  # one more shows whether there is a next page
        runs, more = found[: query.limit], found[query.limit :]
        following = _path({**given.model_dump(exclude_none=True), "before": runs[-1].id}) if more else None
        return RunPage(runs=[RunSummary.of(run) for run in runs], next=following)

    @operation("Return a stored run", answer=KeptRun, problems=(404, 503))
    def get(self, run_id: str) -> KeptRun:
        """How it ended, its environment and its evidence."""
        return KeptRun.of_stored(self._runs.get(_id(run_id)))

    @operation("Delete a stored run", status=204, problems=(404, 409, 503))
    def delete(self, run_id: str) -> ResponseReturnValue:
        """It is deleted from the store, from /report and from /metrics.  A run that is on is not deleted."""
        self._runs.delete(_id(run_id))
        return "", 204


def _filters() -> RunsQuery:
    if strangers := [name for name in request.args if name not in RunsQuery.model_fields]:
        filters = ", ".join(RunsQuery.model_fields)
        raise InputError(strangers[0], f"is not a filter; the filters are {filters}", "choose one of those")
    if twice := [name for name, values in request.args.lists() if len(values) > 1]:
        raise InputError(twice[0], "is given more than once", "send each filter once")
    try:
        return RunsQuery.model_validate(request.args.to_dict())
    except ValidationError as error:
        raise BadBody(RunsQuery, error) from None


def _id(run_id: str) -> str:
    """Refuse what no run can be called before a database sees it."""
    if not run_id.isprintable():
        raise UnknownRun("no run can have this id")
    return run_id


def _path(query: dict[str, Any]) -> str:
    return f"/runs?{urlencode(query)}"
