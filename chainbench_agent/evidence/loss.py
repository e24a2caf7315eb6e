"""Events that happened but are not in the numbers: how many by cause, and which figures lack them.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from chainbench_agent.catalog import Module
from chainbench_agent.evidence.metric_keys import reported_key
from chainbench_agent.evidence.model import Loss, SkippedProgram
from chainbench_agent.evidence.sample import Sample

PROGRAMS_SKIPPED = "programs_skipped"
"""The loss that the kernel counts: programs that could not run because one ran already."""


def loss(
    modules: Iterable[Module],
    raised_on: Mapping[str, tuple[str, ...]],
    unavailable: Mapping[str, Mapping[str, str]],
    first: Sample,
    last: Sample,
) -> Loss:
    """`raised_on`: hook without a program of its own → the hooks whose programs raise it."""
    causes = {cause: count - first.loss.get(cause, 0) for cause, count in last.loss.items()}
    skipped = {hook: run.missed - first.programs[hook].missed for hook, run in last.programs.items()}
    causes[PROGRAMS_SKIPPED] = sum(skipped.values())
    return Loss(
        total=sum(causes.values()),
        causes={cause: count for cause, count in causes.items() if count},
        programs_skipped={
            hook: SkippedProgram(events=count, metrics=_fed_by(hook, modules, raised_on, unavailable))
            for hook, count in skipped.items()
            if count
        }
        or None,
    )


def _fed_by(
    hook: str,
    modules: Iterable[Module],
    raised_on: Mapping[str, tuple[str, ...]],
    unavailable: Mapping[str, Mapping[str, str]],
) -> list[str]:
    """The figures of this run that lack events if a program at this hook does not run."""
    return [
        f"{module.section_key}.{reported_key(metric)}"
        for module in modules
        for metric in module.reported
        if reported_key(metric) not in unavailable.get(module.name, {})
        and any(hook in raised_on.get(on, (on,)) for on in module.hooks_of(metric))
    ]
