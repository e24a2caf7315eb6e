"""`Agent`: one method for each call of the HTTP API, and `collect` for a whole run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from chainbench_agent.client.collection import Run
from chainbench_agent.client.errors import ClientError, ProblemError
from chainbench_agent.client.transport import Json, Transport

log = logging.getLogger(__name__)


class Agent:
    """A client of the agent at `url`: http://host:port, https://host:port, or unix:/path.

    `token`: for an agent with a --token-file.  `ca`: a file with the certificate that signed the agent's own.
    `timeout`: the seconds that each call waits for the agent to connect, and then to send something.
    Answers are the JSON objects of docs/api.md.  Every call may raise a ClientError.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:9090",
        *,
        token: str | None = None,
        timeout: float = 60,
        ca: str | Path | None = None,
    ) -> None:
        self.url = url
        self.timeout = timeout
        self._http = Transport(url, token, timeout, ca)

    def __repr__(self) -> str:
        return f"Agent({self.url!r})"

    @contextmanager
    def collect(  # noqa: PLR0913 - the fields of /start
        self,
        labels: Mapping[str, str] | None = None,
        /,
        *,
        pid: int | None = None,
        cgroup: str | None = None,
        probes: str | Sequence[str] | None = None,
        sample_interval: int | None = None,
        max_duration_s: float | None = None,
        **more_labels: str,
    ) -> Iterator[Run]:
        """Measure the body of a with statement; afterwards, `run.evidence` says what happened in it.

        The run is stopped however the body ends.  RunLostError if its evidence is not whole; where the body raised
        something, that is raised, with a note about what else failed.
        """
        run = Run(
            self,
            self.start(
                labels,
                pid=pid,
                cgroup=cgroup,
                probes=probes,
                sample_interval=sample_interval,
                max_duration_s=max_duration_s,
                **more_labels,
            ),
        )
        try:
            yield run
        except BaseException as error:
            try:
                run.end()
            except ClientError as failure:
                error.add_note(str(failure))
            raise
        run.end()

    def start(  # noqa: PLR0913 - the fields of /start
        self,
        labels: Mapping[str, str] | None = None,
        /,
        *,
        pid: int | None = None,
        cgroup: str | None = None,
        probes: str | Sequence[str] | None = None,
        sample_interval: int | None = None,
        max_duration_s: float | None = None,
        **more_labels: str,
    ) -> dict[str, Any]:
        """Begin a run; ProblemError with status 409 while one is on.

        The labels are scenario, impl, variant, commit and dataset, as a mapping or as keywords.  The agent ignores
        names that it does not know; each is logged, because a misspelt one may change what is measured.
        """
        options = {
            "pid": pid,
            "cgroup": cgroup,
            "probes": probes if probes is None or isinstance(probes, str) else list(probes),
            "sample_interval": sample_interval,
            "max_duration_s": max_duration_s,
        }
        given = {name: value for name, value in options.items() if value is not None}
        started = self._http.post_json("/start", "run_id", {**(labels or {}), **more_labels, **given})
        for sentence in started.get("warnings", ()):
            log.warning("%s: %s", self.url, sentence)  # not warnings.warn: as an error it would hide that a run is on
        return started

    def stop(self) -> dict[str, Any]:
        """End the run that is on, whoever began it, and return its evidence."""
        return self._http.post_json("/stop", "run")

    def status(self) -> dict[str, Any]:
        """Whether a run is on, and what can be measured."""
        return self._http.get_json("/status", "run_id")

    def report(self, **measured: Any) -> dict[str, Any]:
        """Send what the runner measured: the labels, baseline_ms, optimized_ms and gain_pct."""
        return self._http.post_json("/report", "status", measured)

    def latest(self) -> dict[str, Any] | None:
        """The evidence of the run that finished last; None before the first one."""
        try:
            return dict(self._http.get_json("/report", "evidence")["evidence"])
        except ProblemError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def runs(self, **filters: str) -> Iterator[dict[str, Any]]:
        """The stored runs without their evidence, the newest first; page by page, as they are taken.

        The filters are the labels, `machine` and `result`.
        """
        query: Json = filters
        while True:
            page = self._http.get_json("/runs", "runs", query)
            yield from page["runs"]
            if page["next"] is None:
                return
            query = dict(parse_qsl(urlsplit(page["next"]).query))

    def run(self, run_id: str) -> dict[str, Any]:
        """One stored run with its environment and its evidence; ProblemError with status 404 if there is none."""
        return self._http.get_json(f"/runs/{quote(run_id, safe='')}", "result")

    def delete(self, run_id: str) -> None:
        """Forget a stored run."""
        self._http.send("DELETE", f"/runs/{quote(run_id, safe='')}")

    def metrics(self) -> str:
        """The series for Prometheus, as text."""
        return self._http.get("/metrics").text
