"""The catalogue: every module here, found by its file, in name order."""

from importlib import import_module
from pathlib import Path

from chainbench_agent.catalog import Module
from chainbench_agent.probes.c_names import CALLS, FIELDS
from chainbench_agent.probes.hooks import HOOKS

DIRECTORY = Path(__file__).parent


def _modules() -> tuple[Module, ...]:
    names = sorted(path.stem for path in DIRECTORY.glob("*.c"))
    return tuple(import_module(f"{__name__}.{name}").MODULE for name in names)


CATALOG: tuple[Module, ...] = _modules()

PMU_EVENTS: tuple[str, ...] = next(m.pmu_counters.events for m in CATALOG if m.pmu_counters)
"""The PMU counters that a module declares."""

__all__ = ["CALLS", "CATALOG", "DIRECTORY", "FIELDS", "HOOKS", "PMU_EVENTS"]
