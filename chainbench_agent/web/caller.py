"""The process that sent a request: a pid or a path that it names means what it means in its namespaces."""

from __future__ import annotations

from flask import request

from chainbench_agent.host.pid_namespaces import client_process
from chainbench_agent.web.access import credentials


def caller() -> int | None:
    """The process at the other end of the present request's connection; None if it is not known."""
    if process := credentials(request.environ.get("gunicorn.socket")):
        return client_process(process.pid or None)
    address, port = request.remote_addr, request.environ.get("REMOTE_PORT")
    return client_process((address, int(port)) if address and port else None)
