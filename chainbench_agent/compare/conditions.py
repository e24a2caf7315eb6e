"""Whether runs were measured under the same conditions, and completely; what differed prevents a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chainbench_agent.compare.model import Difference, Environment
from chainbench_agent.compare.run_set import MeasuredRun

STORED = ("kernel", "architecture", "cpus", "cpu_model", "governor", "agent", "bcc")
"""The conditions that are stored as the environment of a run."""

UNKNOWN = "unknown"


def compare_conditions(
    baseline: Sequence[MeasuredRun], optimized: Sequence[MeasuredRun], *, allow_different: bool = False
) -> Environment:
    """`allow_different`: differences are reported, but do not prevent a verdict."""
    left, right = [conditions(run) for run in baseline], [conditions(run) for run in optimized]
    names = dict.fromkeys(name for found in (*left, *right) for name in found)
    values = {name: (_distinct(left, name), _distinct(right, name)) for name in names}
    return Environment(
        same={name: one[0] for name, (one, other) in values.items() if _usable(name, one, other)},
        differences=tuple(
            Difference(name=name, baseline=one, optimized=other)
            for name, (one, other) in values.items()
            if not _usable(name, one, other)
        ),
        allowed=allow_different,
    )


def conditions(run: MeasuredRun) -> dict[str, str]:
    """The conditions that must be the same in all runs, as texts."""
    evidence, environment = run.evidence, run.environment
    probes = evidence.run.probes
    return {
        "machine": evidence.run.machine,
        **{name: str(environment.get(name, UNKNOWN)) for name in STORED},
        "modules": ", ".join(sorted(probes)) if probes is not None else ", ".join(sorted(evidence.sections)),
        "sample_interval": str(evidence.run.sample_interval),
        "target": evidence.target.kind,
        "schema_version": str(evidence.schema_version),
        "data": "measured" if evidence.available and evidence.source == "ebpf" else "mock",
        "ended": "finished" if run.finished else evidence.run.ended_by,
    }


def _distinct(found: Sequence[Mapping[str, str]], name: str) -> tuple[str, ...]:
    return tuple(sorted({conditions[name] for conditions in found}))


def _usable(name: str, baseline: tuple[str, ...], optimized: tuple[str, ...]) -> bool:
    """The same everywhere; mock data and unfinished runs can be compared with nothing."""
    required = {"data": "measured", "ended": "finished"}.get(name)
    return baseline == optimized and len(baseline) == 1 and required in {None, baseline[0]}
