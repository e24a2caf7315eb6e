"""From modules to a loaded unit: sources by BTF, header tree, one C text, the loader child, one program per hook."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from chainbench_agent.errors import LoaderError
from chainbench_agent.headers.btf import Btf
from chainbench_agent.headers.header_tree import cached_tree, structs_of
from chainbench_agent.headers.offset_checks import check_function, check_source, offset_checks
from chainbench_agent.kernel.counters import available
from chainbench_agent.kernel.fuse import Unit, fuse
from chainbench_agent.kernel.interrupts import preempt_count
from chainbench_agent.kernel.loader import Loaded, Request, load
from chainbench_agent.kernel.sources import eligible, wanted
from chainbench_agent.spec import Hook, Module, Source


@dataclass(frozen=True, slots=True)
class LoadedUnit:
    """Descriptors, and what did not make it: `absent_hooks` by BTF, `absent_modules` because they do not compile."""

    unit: Unit
    loaded: Loaded
    header_tree: Path
    modules: tuple[Module, ...]
    absent_hooks: Mapping[str, str] = field(default_factory=dict)
    absent_modules: Mapping[str, str] = field(default_factory=dict)
    counters: int = 0
    """Of the CPU's: see kernel/counters.py."""

    def close(self) -> None:
        """Give programs and maps back."""
        for fd in (*self.loaded.programs.values(), *(m.fd for m in self.loaded.maps.values())):
            os.close(fd)


def load_unit(
    modules: Iterable[Module],
    hooks: Iterable[Hook],
    cache_dir: Path,
    options: Collection[str] = (),
    *,
    events: bool = False,
) -> LoadedUnit:
    """Compile and load `modules` with those `options`; one that does not compile is left out with clang's reason.

    `events`: with what tells them (probes/events.h).

    Raises SetupError when nothing can be loaded: no BTF, no BCC, no privileges, a wrong layout.
    """
    btf = Btf.load()
    modules, hooks = tuple(modules), tuple(hook for hook in hooks if wanted(hook, btf))
    fitting = _fitting(hooks, btf, options)
    absent = {name: reason for name, (sources, reason) in fitting.items() if reason and not sources}
    host = {"COUNTERS": available(), **({"EVENTS": 1} if events else {})}
    if (distance := preempt_count(btf)) is not None:
        host["PREEMPT_COUNT"] = distance

    def attempt(chosen: tuple[Module, ...]) -> LoadedUnit:
        unit = fuse(chosen, hooks, lambda hook: fitting[hook.name][0], lambda field_: _has(btf, field_), host)
        tree = cached_tree(cache_dir, btf, _roots(unit.text), os.uname().release)
        return LoadedUnit(unit, load(_request(unit, tree, btf)), tree, chosen, absent, counters=host["COUNTERS"])

    try:
        return attempt(modules)
    except LoaderError:
        guilty = _guilty(modules, attempt)
        if not guilty or len(guilty) == len(modules):
            raise
        return replace(attempt(tuple(m for m in modules if m.name not in guilty)), absent_modules=guilty)


def _fitting(hooks: Iterable[Hook], btf: Btf, options: Collection[str]) -> dict[str, tuple[list[Source], str]]:
    """Hook → the sources that this kernel has, and why not the others; a stand-in has none where it is not needed."""
    hooks = tuple(hooks)
    fitting = {hook.name: eligible(hook, btf, options) for hook in hooks}
    for hook in hooks:
        if hook.stands_in_for and all(fitting[name][0] for name in hook.stands_in_for):
            fitting[hook.name] = [], f"not needed: this kernel has {' and '.join(hook.stands_in_for)}"
    return fitting


def _guilty(modules: tuple[Module, ...], attempt: Callable[[tuple[Module, ...]], LoadedUnit]) -> dict[str, str]:
    """The modules that do not compile alone, with the reason."""
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
    """The kernel's types that the C text names; those of our own (cb_…) are not in the BTF and fall through."""
    return set(re.findall(r"\b(?:struct|union|enum) (\w+)", text))


def _request(unit: Unit, tree: Path, btf: Btf) -> Request:
    """Every member that the text could mean is checked: the superset needs no list to be kept."""
    used = set(re.findall(r"(?:->|\.)(\w+)", unit.text))
    checks = offset_checks(btf, structs_of(tree), used)
    return Request(
        text=unit.text + check_source(checks),
        header_tree=str(tree),
        programs=[(part.name, part.kind) for program in unit.programs for part in program.parts]
        + [("cb_identify", "raw_tracepoint")],
        maps=list(unit.maps),
        offsets=[
            (check_function(number), f"{check.struct}.{check.member}", check.offset)
            for number, check in enumerate(checks)
        ],
    )
