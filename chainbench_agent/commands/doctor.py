"""`chainbench-agent doctor`: shows what works on this machine, from which sources, and how to fix the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chainbench_agent.catalog import Module
from chainbench_agent.collector.ebpf import EbpfCollector
from chainbench_agent.errors import SetupError
from chainbench_agent.kernel.preflight import Check, all_checks
from chainbench_agent.model.status import ModuleStatus
from chainbench_agent.probes import HOOKS

_MARKS = {True: "ok", False: "--"}
_STATES = {"up": "ok", "degraded": "ok", "down": "--", "off": "  "}


@dataclass(frozen=True, slots=True)
class Examination:
    """`healthy`: every module works; metrics that this machine cannot offer may be missing."""

    checks: tuple[Check, ...]
    modules: tuple[ModuleStatus, ...]
    error: str = ""

    @property
    def healthy(self) -> bool:
        return (
            not self.error and bool(self.modules) and all(module.state in ("up", "degraded") for module in self.modules)
        )

    def as_json(self) -> dict[str, Any]:
        return {"healthy": self.healthy} | asdict(self)


def examine(modules: Iterable[Module], cache_dir: Path) -> Examination:
    """Compile, load and attach each module, and detach it again."""
    checks = tuple(all_checks())
    if unmet := [check for check in checks if check.needed and not check.ok]:
        return Examination(checks, (), f"{unmet[0].name}: {unmet[0].found}")
    try:
        collector = EbpfCollector(modules, HOOKS, cache_dir)
    except (SetupError, OSError) as error:
        return Examination(checks, (), str(error))
    try:
        return Examination(checks, tuple(collector.status().modules))
    finally:
        collector.close()


def render(examination: Examination) -> str:
    """The examination as text: a line per check and module, the remedy below each that fails."""
    lines = ["This machine"]
    for check in examination.checks:
        lines.append(f"  {_MARKS[check.ok]}  {check.name:<16}{check.found}")
        if check.remedy:
            lines.append(f"{'':22}→ {check.remedy}")
    lines += ["", "Modules"]
    for module in examination.modules:
        sources = ", ".join(dict.fromkeys(s for found in module.sources.values() for s in found.split(", ")))
        lines.append(f"  {_STATES[module.state]}  {module.name:<16}{sources or module.reason}")
        for reason in dict.fromkeys(module.unavailable.values()):
            metrics = [metric for metric, why in module.unavailable.items() if why == reason]
            lines.append(f"{'':22}without {', '.join(metrics)}: {reason}")
    if examination.error:
        lines.append(f"  --  none: {examination.error}")
    verdict = "All modules measure." if examination.healthy else "The agent would serve mock data or lack modules."
    return "\n".join([*lines, "", verdict])
