"""`chainbench-agent probes check`: does every module compile and load on this kernel, and what does it take?

Nothing is attached.  Each module is loaded by itself, with the support files that it cannot do without, and then all of
them as the agent loads them.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chainbench_agent.bpf.footprint import ProgramSize, map_bytes, program_size
from chainbench_agent.catalog import Module
from chainbench_agent.errors import LoaderError
from chainbench_agent.loading.bpf_unit import LoadedUnit, load_unit
from chainbench_agent.loading.entry_functions import Program
from chainbench_agent.probes import HOOKS

ALL = "all"
_PLACED = {hook.name: hook for hook in HOOKS}


@dataclass(frozen=True, slots=True)
class UnitCheck:
    """One unit of modules, loaded.

    programs: source → size; maps: name → bytes; absent: hook → why this kernel offers nothing to feed it;
    refused: source → what the kernel said when the program was loaded.
    """

    name: str
    seconds: float
    error: str = ""
    programs: dict[str, ProgramSize] = field(default_factory=dict)
    maps: dict[str, int] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    """Hooks all of whose programs were refused."""

    @property
    def ok(self) -> bool:
        return not self.error and not self.failed


@dataclass(frozen=True, slots=True)
class ProbesCheck:
    units: tuple[UnitCheck, ...]

    @property
    def ok(self) -> bool:
        return all(unit.ok for unit in self.units)

    @property
    def seconds(self) -> float:
        return sum(unit.seconds for unit in self.units)

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "seconds": self.seconds} | asdict(self)


def check(modules: Iterable[Module], cache_dir: Path) -> ProbesCheck:
    """Load each of `modules`, and all together.  Raises SetupError when this machine cannot load BPF at all."""
    modules = tuple(modules)
    units: dict[str, tuple[Module, ...]] = {module.name: (module,) for module in modules} | (
        {ALL: modules} if len(modules) > 1 else {}
    )
    return ProbesCheck(tuple(_check(chosen, name, cache_dir) for name, chosen in units.items()))


def _check(modules: tuple[Module, ...], name: str, cache_dir: Path) -> UnitCheck:
    began = time.monotonic()
    try:
        unit = load_unit(modules, HOOKS, cache_dir, [name for module in modules for name in module.names])
    except LoaderError as error:
        return UnitCheck(name, time.monotonic() - began, error=str(error))
    try:
        return _examine(unit, name, time.monotonic() - began)
    finally:
        unit.close()


def _examine(unit: LoadedUnit, name: str, seconds: float) -> UnitCheck:
    loaded = unit.loaded
    entries = {part.name: part for program in unit.unit.programs for part in program.parts}
    fed = {entries[program].hook for program in loaded.programs if program in entries}
    tried = dict.fromkeys(program.hook for program in entries.values())
    return UnitCheck(
        name,
        seconds,
        "; ".join(f"{module}: {why}" for module, why in unit.absent_modules.items()),
        {_source(entries, program): program_size(fd) for program, fd in loaded.programs.items()},
        {table: map_bytes(found.fd) for table, found in loaded.maps.items()},
        _absent(unit),
        {_source(entries, program): why for program, why in loaded.failed.items()},
        tuple(hook for hook in tried if hook not in fed),
    )


def _absent(unit: LoadedUnit) -> dict[str, str]:
    """The hooks that these modules handle and this kernel does not have."""
    needed = {
        place for module in unit.modules for hook in module.hooks for place in (_PLACED[hook].raised_on or (hook,))
    }
    return {hook: why for hook, why in unit.absent_hooks.items() if hook in needed}


def _source(entries: dict[str, Program], name: str) -> str:
    """Where a program would be attached; one of our own, which the agent runs on itself, has only its name."""
    return str(entries[name].source) if name in entries else name


def render(found: ProbesCheck) -> str:
    """For people: per unit its programs and what they take, its maps as a sum, what went wrong below."""
    lines = [line for unit in found.units for line in _lines(unit)]
    verdict = "Everything loads." if found.ok else "Not everything loads."
    return "\n".join([*lines, f"{verdict} {found.seconds:.2f} s"])


def _lines(unit: UnitCheck) -> list[str]:
    memory = f"{len(unit.maps)} maps of {sum(unit.maps.values()) / 1024:.0f} KiB"
    lines = [f"{unit.name}: {len(unit.programs)} programs, {memory}, {unit.seconds:.2f} s"]
    for source, size in unit.programs.items():
        verified = "" if size.verified is None else f", {size.verified} verified"
        stack = "" if size.stack_bytes is None else f", stack {size.stack_bytes}"
        code = f"{size.machine_code_bytes} bytes" if size.machine_code_bytes else "not compiled to machine code"
        lines.append(f"  ok  {source:<44} {size.instructions} instructions{verified}{stack}, {code}")
    lines += [f"  --  {source:<44} {why}" for source, why in unit.refused.items()]
    lines += [f"      {hook}: not on this kernel: {why}" for hook, why in unit.absent.items()]
    lines += [f"  --  {hook}: no program of it loads" for hook in unit.failed]
    lines += [f"  --  {unit.error}"] * bool(unit.error)
    maps = ", ".join(f"{name} {size / 1024:.0f}" for name, size in unit.maps.items())
    return [*lines, *textwrap.wrap(maps, 110, initial_indent="  KiB ", subsequent_indent="      "), ""]
