"""Makes the Flask application."""

from __future__ import annotations

from flask import Flask

from chainbench_agent.catalog.selection import ALL, Selection
from chainbench_agent.runs.event_listeners import Events, Source
from chainbench_agent.runs.lifecycle import Runs
from chainbench_agent.web import compression, ignored_fields, problems
from chainbench_agent.web.access import OPEN, Access
from chainbench_agent.web.event_routes import EventRoutes
from chainbench_agent.web.http_framing import LONGEST_BODY
from chainbench_agent.web.openapi import DocumentRoutes
from chainbench_agent.web.routes import Api, Metrics
from chainbench_agent.web.run_routes import RunRoutes

DEFAULT = Selection((ALL,))
"""Every module that is loaded, no option, and every event."""


def create_app(
    runs: Runs,
    metrics: Metrics,
    default: Selection = DEFAULT,
    *,
    access: Access = OPEN,
    ring: Source | None = None,
) -> Flask:
    """`metrics` renders the exposition for an Accept header; `default`: what a run selects that names nothing."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LONGEST_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the evidence has an order made for reading
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    compression.install(app)
    ignored_fields.install(app)
    problems.install(app)
    access.install(app)
    Api(runs, metrics, default).add_to(app)
    RunRoutes(runs).add_to(app)
    EventRoutes(Events(ring)).add_to(app)
    DocumentRoutes().add_to(app)
    return app
