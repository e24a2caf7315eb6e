"""`chainbench-agent compare`: asks an agent for the stored runs of two sides, compares them, and says what that means.

The agent is asked over HTTP: its store may be open for one process only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from chainbench_agent.client import Agent
from chainbench_agent.compare.build import Compared, compare
from chainbench_agent.compare.formats import FORMATS
from chainbench_agent.compare.gate import exit_code, slower_percent
from chainbench_agent.compare.rendering import Format
from chainbench_agent.compare.run_set import MOST_RUNS, MeasuredRun
from chainbench_agent.errors import AgentError, InputError
from chainbench_agent.evidence.model import Evidence
from chainbench_agent.model.stored_run import LABELS

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


def run_compare(asked: Asked, agent: Agent) -> tuple[str, int]:
    """The text in the format that was asked for, and the exit code.

    AgentError or ClientError if nothing could be compared.
    """
    shown, slower = _format(asked.format), slower_percent(asked.fail_if)
    baseline = _side("baseline", asked.baseline, asked, agent)
    optimized = _side("optimized", asked.optimized, asked, agent)
    compared = compare(baseline, optimized, allow_different=asked.allow_different)
    if shown.name == "github":
        _add_to_step_summary(compared)
    code = exit_code(compared.comparison, slower, require_conclusive=asked.require_conclusive)
    return shown.render(compared), code


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise InputError("format", f"there is no {name}", f"choose among {', '.join(FORMATS)}")
    return FORMATS[name]


def _side(name: str, text: str, asked: Asked, agent: Agent) -> list[MeasuredRun]:
    """The runs of a side: one by its id, or the newest that have all of its labels."""
    if ":" not in text:
        return [_run(name, text, agent)]
    labels, since = parse_labels(name, text), _since(asked.since)
    newest = islice(agent.runs(**labels, result="finished", limit=str(asked.limit)), asked.limit)
    ids = [run["id"] for run in newest if since is None or datetime.fromisoformat(run["started_at"]) >= since]
    if not ids:
        raise InputError(name, f"no finished run has the labels {text}", "GET /runs lists what is stored")
    return [_run(name, run_id, agent) for run_id in ids]


def _run(side: str, run_id: str, agent: Agent) -> MeasuredRun:
    stored = agent.run(run_id)
    if not stored["evidence"]:
        raise InputError(side, f"run {run_id} has no evidence: it is {stored['result']}")
    try:
        return MeasuredRun(Evidence.from_json(stored["evidence"]), stored["environment"])
    except ValidationError:
        raise InputError(side, f"the evidence of run {run_id} is of another version of the agent") from None


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
