"""Loads the BPF unit of modules: prepares its C text by the kernel's BTF, has it compiled, and loads its programs."""

from __future__ import annotations

import atexit
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from chainbench_agent.catalog import Hook, Module, Source
from chainbench_agent.errors import LoaderError
from chainbench_agent.headers.btf import Btf
from chainbench_agent.headers.btf_types import Kind
from chainbench_agent.headers.header_tree import cached_tree, structs_in_tree
from chainbench_agent.headers.offset_checks import check_function, check_source, offset_checks
from chainbench_agent.loading.attach_points import eligible, is_needed
from chainbench_agent.loading.child_process import run_in_child
from chainbench_agent.loading.compiler import UnitText, compiled
from chainbench_agent.loading.event_records import EventOptions
from chainbench_agent.loading.host_features import FEATURES
from chainbench_agent.loading.loader import Loaded, LoadRequest, load
from chainbench_agent.loading.pmu_events import available
from chainbench_agent.loading.preempt_count import preempt_count
from chainbench_agent.loading.unit_sizes import TASK_RECORDS
from chainbench_agent.loading.unit_text import Unit, fuse

PID_MAX = Path("/proc/sys/kernel/pid_max")

_CHECKS_HEADING = """
// ==== generated/offset_checks.c
// Compiled, and never loaded: each returns where the compiler finds a member, which must be where BTF says.
"""


@dataclass(frozen=True, slots=True)
class LoadedUnit:
    """A loaded unit, and what it lacks: `absent_hooks` by BTF, `absent_modules` because they do not compile."""

    unit: Unit
    loaded: Loaded
    header_tree: Path
    modules: tuple[Module, ...]
    absent_hooks: Mapping[str, str] = field(default_factory=dict)
    absent_modules: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    """Feature of the host (loading/host_features.py) → why it is missing; empty if it is there."""
    counters: int = 0
    """A bit for each PMU counter that can be read: see loading/pmu_events.py."""

    def close(self) -> None:
        """Close the descriptors of the programs and maps."""
        for fd in (*self.loaded.programs.values(), *(m.fd for m in self.loaded.maps.values())):
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A unit to compile and load, and what is known of this host: all that requires the BTF."""

    unit: Unit
    text: UnitText
    requests: list[LoadRequest]
    tree: Path
    absent_hooks: Mapping[str, str]
    facts: Mapping[str, str]
    counters: int


def load_unit(
    modules: Iterable[Module],
    hooks: Iterable[Hook],
    cache_dir: Path,
    options: Collection[str] = (),
    *,
    events: EventOptions | None = None,
) -> LoadedUnit:
    """Compile and load `modules` with those `options`; one that does not compile is left out with clang's reason.

    `events`: emit events (probes/lib/events.h).

    Raises SetupError when nothing can be loaded: no BTF, no BCC, no privileges, a wrong layout.
    """
    modules, hooks = tuple(modules), tuple(hooks)

    def attempt(chosen: tuple[Module, ...]) -> LoadedUnit:
        ready = run_in_child(lambda: prepare(chosen, hooks, cache_dir, options, events))
        if ready.tree.parent != cache_dir:  # a temporary one
            atexit.register(shutil.rmtree, ready.tree, ignore_errors=True)
        loaded = load(compiled(ready.text), ready.requests)
        return LoadedUnit(
            ready.unit, loaded, ready.tree, chosen, ready.absent_hooks, facts=ready.facts, counters=ready.counters
        )

    try:
        return attempt(modules)
    except LoaderError:
        guilty = _guilty(modules, attempt)
        if not guilty or len(guilty) == len(modules):
            raise
        return replace(attempt(tuple(m for m in modules if m.name not in guilty)), absent_modules=guilty)


def prepare(
    modules: tuple[Module, ...],
    hooks: tuple[Hook, ...],
    cache_dir: Path,
    options: Collection[str],
    events: EventOptions | None,
) -> Prepared:
    """Parse the BTF, which takes 20 MB, and write the unit; `load_unit` does this in a child."""
    btf = Btf.load()
    hooks = tuple(hook for hook in hooks if is_needed(hook, btf))
    fitting = _fitting(hooks, btf, options)
    absent = {name: reason for name, (sources, reason) in fitting.items() if reason and not sources}
    host = {"COUNTERS": available(), "TASKS": min(TASK_RECORDS, _power_of_two(int(PID_MAX.read_text())))}
    if events:
        host |= events.defines
    if (distance := preempt_count(btf)) is not None:
        host["PREEMPT_COUNT"] = distance
    host |= _bit_field(btf, "task_struct", "in_iowait")
    unit = fuse(modules, hooks, lambda hook: fitting[hook.name][0], lambda field_: _has(btf, field_), host)
    tree = cached_tree(cache_dir, btf, _roots(unit.text), os.uname().release)
    facts = {name: lacking(btf) for name, lacking in FEATURES.items()}
    requests = _requests(unit, btf)
    text = _text(unit, tree, btf, [program.name for program in requests])
    return Prepared(unit, text, requests, tree, absent, facts, host["COUNTERS"])


def _bit_field(btf: Btf, struct: str, member: str) -> dict[str, int]:
    """The position of a bit for C: the byte of the struct, and the mask in it; 0 if there is no such member."""
    record = btf.record(struct)
    places = (place for name, _, place, bits in (record.members if record else ()) if name == member and bits)
    place = next(places, None)
    name = member.upper()
    return {f"{name}_BYTE": (place or 0) // 8, f"{name}_MASK": 0 if place is None else 1 << place % 8}


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _fitting(hooks: Iterable[Hook], btf: Btf, options: Collection[str]) -> dict[str, tuple[list[Source], str]]:
    """Hook → its sources on this kernel, and the reasons against others; a stand-in that is not needed has none."""
    hooks = tuple(hooks)
    fitting = {hook.name: eligible(hook, btf, options) for hook in hooks}
    fitting = {name: (_needed(sources), reason) for name, (sources, reason) in fitting.items()}
    for hook in hooks:
        if hook.stands_in_for and all(fitting[name][0] for name in hook.stands_in_for):
            fitting[hook.name] = [], f"not needed: this kernel has {' and '.join(hook.stands_in_for)}"
    return fitting


def _needed(sources: list[Source]) -> list[Source]:
    """The sources up to the first raw tracepoint: it attaches if this kernel has it, so later ones are not compiled."""
    raw = (place for place, source in enumerate(sources, 1) if source.kind == "raw_tracepoint")
    return sources[: next(raw, None)]


def _guilty(modules: tuple[Module, ...], attempt: Callable[[tuple[Module, ...]], LoadedUnit]) -> dict[str, str]:
    """The modules that do not compile on their own → the reason."""
    guilty = {}
    for module in modules:
        try:
            attempt((module,)).close()
        except LoaderError as error:
            guilty[module.name] = str(error)
    return guilty


def _has(btf: Btf, field_: str) -> bool:
    struct, _, member = field_.partition(".")
    if not member:
        return btf.find_enumerator(struct) is not None
    return btf.member_offset(struct, member) is not None


def _roots(text: str) -> set[str]:
    """The types that the C text names; those that are not the kernel's are not in the BTF, and are ignored."""
    return set(re.findall(r"\b(?:struct|union|enum) (\w+)", text))


def _requests(unit: Unit, btf: Btf) -> list[LoadRequest]:
    """Every program of the unit, and the one that identifies the agent."""
    parts = (part for program in unit.programs for part in program.parts)
    own = LoadRequest("cb_identify", "raw_tracepoint")
    return [own, *(LoadRequest(part.name, part.kind, _attach_type_id(part.source, btf)) for part in parts)]


def _attach_type_id(source: Source, btf: Btf) -> int:
    """The BTF id of what a program of BPF_PROG_TYPE_TRACING attaches to; 0 for all others."""
    if source.kind == "tp_btf":
        found = btf.find(f"btf_trace_{source.target}", Kind.TYPEDEF)
    else:
        found = btf.find(source.target, Kind.FUNC) if source.kind in ("fentry", "fexit") else None
    return found.id if found else 0


def _text(unit: Unit, tree: Path, btf: Btf, functions: list[str]) -> UnitText:
    """The text, with a check of each member that a name in it may mean: this superset requires no list by hand."""
    used = set(re.findall(r"(?:->|\.)(\w+)", unit.text))
    checks = offset_checks(btf, structs_in_tree(tree), used)
    return UnitText(
        c_text=unit.text + _CHECKS_HEADING + check_source(checks),
        header_tree=str(tree),
        functions=functions,
        maps=list(unit.maps),
        offsets=[
            (check_function(number), f"{check.struct}.{check.member}", check.offset)
            for number, check in enumerate(checks)
        ],
    )
