"""The report, in which the runner sends its own measurements: the body of `POST /report`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Report(BaseModel):
    """Wall times of a baseline and an optimised variant, in milliseconds, and the gain in percent."""

    model_config = ConfigDict(frozen=True)

    scenario: str = ""
    impl: str
    variant: str
    commit: str
    dataset: str
    baseline_ms: float
    optimized_ms: float
    gain_pct: float
    baseline_success: bool | int | None = None
    """Did it work?  Runners in the wild send 0 and 1 as well."""
    optimized_success: bool | int | None = None
