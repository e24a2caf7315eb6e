"""`chainbench-agent compare`: asks an agent for the stored runs of two sides, compares them, and says what that means.

The agent is asked over HTTP: its store may be open for one process only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
from pydantic import ValidationError

from chainbench_agent.compare.build import Compared, compare
from chainbench_agent.compare.formats import FORMATS
from chainbench_agent.compare.gate import exit_code, slower_percent
from chainbench_agent.compare.rendering import Format
from chainbench_agent.compare.run_set import MOST_RUNS, MeasuredRun
from chainbench_agent.errors import AgentError, InputError
from chainbench_agent.evidence.model import Evidence
from chainbench_agent.model.stored_run import LABELS

ANSWER_WITHIN_S = 60
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments of the command.  `since` and `limit` choose among the runs that a side's labels select."""

    baseline: str
    optimized: str
    format: str = "text"
    fail_if: str = "slower"
    require_conclusive: bool = False
    allow_different: bool = False
    limit: int = MOST_RUNS
    since: str = ""


class StoredRuns:
    """The runs that an agent has stored.  AgentError if it does not answer, or refuses."""

    def __init__(self, url: str, token: str = "") -> None:
        self._url = url.rstrip("/")
        self._http = requests.Session()
        self._http.trust_env = False  # no proxy between us and our own agent
        if token:
            self._http.headers["Authorization"] = f"Bearer {token}"

    def newest(self, labels: Mapping[str, str], limit: int, since: datetime | None) -> Iterator[str]:
        """Ids of the finished runs with these labels."""
        query = {**labels, "result": "finished", "limit": str(limit)}
        for run in self._get("/runs", query)["runs"]:
            if since is None or datetime.fromisoformat(run["started_at"]) >= since:
                yield run["id"]

    def get(self, side: str, run_id: str) -> MeasuredRun:
        stored = self._get(f"/runs/{quote(run_id, safe='')}")
        if not stored["evidence"]:
            raise InputError(side, f"run {run_id} has no evidence: it is {stored['result']}")
        try:
            return MeasuredRun(Evidence.from_json(stored["evidence"]), stored["environment"])
        except ValidationError:
            raise InputError(side, f"the evidence of run {run_id} is of another version of the agent") from None

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        try:
            answer = self._http.get(f"{self._url}{path}", params=query, timeout=ANSWER_WITHIN_S)
            document: dict[str, Any] = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise AgentError(f"no agent answers at {self._url}: {error}; name another with --url") from None
        if not answer.ok:
            raise AgentError(f"{self._url}{path}: {document.get('detail', answer.reason)}")
        return document


def run_compare(asked: Asked, runs: StoredRuns) -> tuple[str, int]:
    """The text in the format that was asked for, and the exit code.  AgentError if nothing could be compared."""
    shown, slower = _format(asked.format), slower_percent(asked.fail_if)
    baseline = _side("baseline", asked.baseline, asked, runs)
    optimized = _side("optimized", asked.optimized, asked, runs)
    compared = compare(baseline, optimized, allow_different=asked.allow_different)
    if shown.name == "github":
        _add_to_step_summary(compared)
    code = exit_code(compared.comparison, slower, require_conclusive=asked.require_conclusive)
    return shown.render(compared), code


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise InputError("format", f"there is no {name}", f"choose among {', '.join(FORMATS)}")
    return FORMATS[name]


def _side(name: str, text: str, asked: Asked, runs: StoredRuns) -> list[MeasuredRun]:
    """The runs of a side: one by its id, or the newest that have all of its labels."""
    if ":" not in text:
        return [runs.get(name, text)]
    ids = list(runs.newest(parse_labels(name, text), asked.limit, _since(asked.since)))
    if not ids:
        raise InputError(name, f"no finished run has the labels {text}", "GET /runs lists what is stored")
    return [runs.get(name, run_id) for run_id in ids]


def parse_labels(name: str, text: str) -> dict[str, str]:
    """`variant:naive,commit:abc` as label → value."""
    labels: dict[str, str] = {}
    for pair in text.split(","):
        label, colon, value = pair.partition(":")
        if not colon or label not in LABELS or label in labels:
            remedy = f"write label:value,label:value with labels among {', '.join(LABELS)}, each once"
            raise InputError(name, f"{pair!r} is no label with a value", remedy)
        labels[label] = value
    return labels


def _since(text: str) -> datetime | None:
    """A time without a zone is local time."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise InputError("since", f"{text!r} is no time", "write it as 2026-11-30T08:00") from None


def _add_to_step_summary(compared: Compared) -> None:
    """Where a GitHub workflow runs this, the Markdown goes into the summary of its step."""
    if path := os.environ.get(STEP_SUMMARY):
        try:
            with Path(path).open("a", encoding="utf-8") as summary:
                summary.write(FORMATS["markdown"].render(compared))
        except OSError as error:
            raise AgentError(f"cannot write {path}, which {STEP_SUMMARY} names: {error.strerror}") from None
