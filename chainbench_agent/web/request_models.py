"""Models of requests: the bodies of `POST /start` and `POST /report`, and the query of `GET /runs`.

A field's description completes the sentence "send it as …".  Unknown fields are ignored, because existing
runners send them; a known field that asks for what this agent cannot measure is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from chainbench_agent.catalog.selection import MAX_SAMPLE_INTERVAL, Selection, choose, unknown
from chainbench_agent.evidence.model import Labels, Target
from chainbench_agent.evidence.report import Report
from chainbench_agent.model.run_request import MAX_DURATION_S, RunRequest
from chainbench_agent.model.stored_run import LABELS, Query, Result


def _in_print(text: str) -> str:
    """Labels end up in log lines and in Prometheus."""
    if not text.isprintable() or text.isspace():
        raise PydanticCustomError("not_printable", "has characters that do not print")
    return text


def _zero_or_one(value: object) -> object:
    """Existing runners send flags as integers."""
    return bool(value) if type(value) is int and value in (0, 1) else value


def _split(value: object) -> object:
    """Split a text with commas into names, as on the command line."""
    return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value


_OptionalWord = Annotated[
    str,
    StringConstraints(strict=True, max_length=200),
    AfterValidator(_in_print),
    Field(description="a string of at most 200 printable characters"),
]
_Word = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=200),
    AfterValidator(_in_print),
    Field(description="a string of 1 to 200 printable characters"),
]
_Milliseconds = Annotated[
    float,
    Field(strict=True, ge=0, allow_inf_nan=False, description="a number of milliseconds, 0 or more"),
]
_Percent = Annotated[float, Field(strict=True, allow_inf_nan=False, description="a number of percent")]
_Pid = Annotated[int | None, Field(strict=True, ge=1, le=1 << 22, description="the number of a process")]
_Path = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=4096), AfterValidator(_in_print)]
_Cgroup = Annotated[_Path | None, Field(description="the path of a cgroup v2")]
_Duration = Annotated[
    float | None,
    Field(strict=True, gt=0, le=7 * 86400, allow_inf_nan=False, description="a number of seconds, a week at most"),
]
_Name = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=100)]
_Probes = Annotated[
    Annotated[list[_Name], Field(min_length=1, max_length=100)] | None,
    BeforeValidator(_split),
    Field(description='a list of modules and module:options, such as ["exec", "cpu"]'),
]
_Interval = Annotated[
    int | None,
    Field(
        strict=True, ge=1, le=MAX_SAMPLE_INTERVAL, description="a whole number: 1 for every event, 10 for one in ten"
    ),
]
_Filter = Annotated[_OptionalWord | None, Field(description="a string of at most 200 printable characters")]
_RunId = Annotated[_Name, AfterValidator(_in_print)]
_Flag = Annotated[StrictBool | None, BeforeValidator(_zero_or_one), Field(description="true or false")]


def _refuse(message: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError("unsupported", "{message}", {"message": message, "remedy": remedy})


class StartRequest(Labels):
    """All five labels.  The validation context is the names of the modules and options that are loaded."""

    model_config = ConfigDict(extra="ignore")

    scenario: _Word = Field()
    impl: _Word = Field()
    variant: _Word = Field()
    commit: _Word = Field()
    dataset: _Word = Field()

    pid: _Pid = None
    cgroup: _Cgroup = None
    probes: _Probes = None
    sample_interval: _Interval = None
    max_duration_s: _Duration = None

    def run_request(self, loaded: Sequence[str], default: Selection, caller: int | None) -> RunRequest:
        """The run that `caller` asks for.  `default`: the selection of a body that names no probes, or no interval."""
        probes, interval = self.probes or default.probes, self.sample_interval or default.sample_interval
        return RunRequest(
            labels=Labels.of(self),
            target=self.target,
            caller=caller,
            selection=Selection(choose(probes, loaded), interval),
            longest_s=MAX_DURATION_S if self.max_duration_s is None else self.max_duration_s,
        )

    @property
    def target(self) -> Target:
        if self.pid is not None:
            return Target(kind="pid", pid=self.pid)
        if self.cgroup is not None:
            return Target(kind="cgroup", cgroup=self.cgroup)
        return Target()

    @field_validator("cgroup")
    @classmethod
    def _one_target(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("pid") is not None:
            raise _refuse("a pid was sent as well", "send one of the two")
        return value

    @field_validator("probes")
    @classmethod
    def _is_loaded(cls, names: list[str] | None, info: ValidationInfo) -> list[str] | None:
        loaded: Sequence[str] = info.context or ()
        if strangers := unknown(names or (), loaded):
            raise _refuse(
                f"{', '.join(strangers)} is not loaded; loaded is {', '.join(loaded)}",
                "choose among those, or start the agent with --probes for others",
            )
        return names


class ReportRequest(Report):
    """A runner need not name a scenario: the report is about two."""

    scenario: _OptionalWord = ""
    impl: _Word
    variant: _Word
    commit: _Word
    dataset: _Word
    baseline_ms: _Milliseconds
    optimized_ms: _Milliseconds
    gain_pct: _Percent
    baseline_success: _Flag = None
    optimized_success: _Flag = None

    @property
    def report(self) -> Report:
        return Report(**self.model_dump())


class RunsQuery(BaseModel):
    """Filters of stored runs.  An unknown filter is refused: ignored, it would return too many runs."""

    scenario: _Filter = None
    impl: _Filter = None
    variant: _Filter = None
    commit: _Filter = None
    dataset: _Filter = None
    machine: _Filter = None
    result: Annotated[Result | None, Field(description="finished, failed, interrupted or running")] = None
    before: Annotated[_RunId | None, Field(description="the id of a run, as in `next`")] = None
    limit: Annotated[int, Field(ge=1, le=1000, description="a whole number from 1 to 1000")] = 50

    @property
    def query(self) -> Query:
        given = {name: value for name in LABELS if (value := getattr(self, name)) is not None}
        return Query(given, self.result, self.before or "", self.limit)
