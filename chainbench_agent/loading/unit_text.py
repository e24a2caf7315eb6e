"""Writes the BPF unit: the C text of the enabled modules, with one program for each hook and source.

Several modules handle the same hot hooks.  Each source of a hook gets one generated program, which fetches the hook's
parameters the way that source passes them, checks that a run is on, takes the time once, and calls the inlined
handlers of the enabled modules.

The files of probes/ include what they need.  Some of these files are generated for each unit:

    generated/sizes.h      sizes of maps, and what this kernel and this host have      unit_sizes.py
    generated/process.h    struct cb_process                                           process_records.py
    generated/event_kinds.h, events.h    the kinds of events, and cb_emit()            event_records.py
    generated/MODULE.h     a module's per-CPU struct, and the sizes of its maps        module_values.py
    generated/raised.h     cb_raise_HOOK() for what the state machines raise           here
    generated/hooks.h      cb_raise_HOOK() for what the programs raise                 here
    generated/programs.c   the programs; includes all of the above                     entry_functions.py

A state machine is a file machines/NAME.h that handles hooks, as `NAME_on_HOOK`, and raises others for the modules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from chainbench_agent.catalog import Hook, Module, Source
from chainbench_agent.loading import event_records, process_records
from chainbench_agent.loading.entry_functions import Program, entry, program_name, typed_last
from chainbench_agent.loading.includes import joined
from chainbench_agent.loading.module_values import module_h
from chainbench_agent.loading.unit_sizes import sizes_h
from chainbench_agent.probes import DIRECTORY

STATE_MACHINES = ("sched", "calls", "block", "contention")
"""A state machine is in the unit if a module handles what it raises; sched always is: every target has a ledger."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The C text of a BPF unit, with the programs and maps that its object must have."""

    text: str
    programs: tuple[Program, ...]
    maps: tuple[str, ...]
    follows: frozenset[str] = frozenset()
    """The hooks by which the target is followed (probes/machines/follow.h)."""


def handlers(text: str, owner: str) -> frozenset[str]:
    """The handlers that a C file defines: `OWNER_on_HANDLER(`."""
    return frozenset(re.findall(rf"^static __always_inline void\s{owner}_on_(\w+)\(", text, re.MULTILINE))


def _handled(text: str, owner: str, hooks: Iterable[Hook]) -> frozenset[str]:
    """The hooks that a C file handles; one handler may handle several."""
    defined = handlers(text, owner)
    return frozenset(hook.name for hook in hooks if hook.handled_as in defined)


def module_text(name: str) -> str:
    """The C of a module itself: NAME.h, where there is one, and NAME.c."""
    files = (DIRECTORY / f"{name}.{suffix}" for suffix in "hc")
    return "".join(file.read_text() for file in files if file.exists())


def fuse(
    modules: Iterable[Module],
    hooks: Iterable[Hook],
    sources: Callable[[Hook], Iterable[Source]],
    has_field: Callable[[str], bool],
    host: Mapping[str, int] = MappingProxyType({}),
) -> Unit:
    """The unit.  `sources(hook)`: those to try; `has_field("struct.member")` asks the BTF; `host`: further CB_<key>."""
    modules, hooks = tuple(modules), tuple(hooks)
    handled = {module.name: _handled(module_text(module.name), module.name, hooks) for module in modules}
    machines = _machines(frozenset().union(*handled.values()))
    raised = frozenset().union(*map(_raised_in, machines.values()))
    handled = {name: _handled(text, name, hooks) for name, text in machines.items()} | handled
    follows = _handled(_read("machines/follow.h"), "follow", hooks)
    needed = [hook for hook in hooks if hook.name in follows or any(hook.name in on for on in handled.values())]
    programs = tuple(program for hook in needed for program in _programs(hook, sources(hook)))
    bits = {module.name: 1 << place for place, module in enumerate(modules)}
    options = {hook.option for hook in hooks if hook.option and any(sources(hook))}
    files = {
        "sizes.h": sizes_h(has_field, host),
        "process.h": process_records.process_h(modules),
        "event_kinds.h": event_records.event_kinds_h(modules),
        "events.h": event_records.events_h(emitted="EVENTS" in host),
        **{f"{module.name}.h": module_h(module, options) for module in modules},
        "raised.h": _including(f"{module.name}.c" for module in modules)
        + "\n".join(_raise(hook, handled, bits) for hook in hooks if hook.name in raised),
        "hooks.h": _including(f"machines/{name}.h" for name in machines)
        + "\n".join(_raise(hook, handled, bits) for hook in needed if not hook.raised_on),
        "programs.c": _programs_c(programs, {hook.name: hook for hook in hooks}, follows),
    }
    generated = {f"generated/{name}": text for name, text in files.items()}
    text = joined("generated/programs.c", lambda name: generated[name] if name in generated else _read(name))
    return Unit(text, programs, maps_of(text), follows)


def _read(name: str) -> str:
    return (DIRECTORY / name).read_text()


def _including(files: Iterable[str]) -> str:
    return "".join(f'#include "{file}"\n' for file in files) + "\n"


def _machines(handled: frozenset[str]) -> dict[str, str]:
    """Name → text of the state machines that raise one of the hooks which modules handle."""
    texts = {name: _read(f"machines/{name}.h") for name in STATE_MACHINES}
    return {name: text for name, text in texts.items() if name == "sched" or handled & _raised_in(text)}


def _raised_in(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\bcb_raise_(\w+)\(", text))


def _programs(hook: Hook, sources: Iterable[Source]) -> list[Program]:
    return [Program(program_name(hook, source, index), hook.name, source) for index, source in enumerate(sources)]


def _programs_c(programs: tuple[Program, ...], hooks: Mapping[str, Hook], follows: frozenset[str]) -> str:
    """The text of all programs; follow.h comes first, because the target is followed before anything is counted."""
    saves = any(len(program.parts) > 1 for program in programs)
    files = ("machines/follow.h", "generated/hooks.h", "lib/identify.h", *(["lib/returns.h"] if saves else []))
    entries = (entry(program, hooks[program.hook], follows, number) for number, program in typed_last(programs))
    return _including(files) + "\n".join(entries)


def _raise(hook: Hook, handled: Mapping[str, frozenset[str]], bits: Mapping[str, int]) -> str:
    """cb_raise_HOOK(): calls each state machine that handles the hook, and each module that does and collects."""
    names = [re.sub(r".*\W", "", param) for param in hook.params]
    lines = [
        f"static __always_inline void cb_raise_{hook.name}({', '.join(('struct cb_event *ev', *hook.params))})",
        "{",
        "\tint zero = 0;",
    ]
    for owner, on in handled.items():
        if hook.name not in on:
            continue
        if owner in STATE_MACHINES:
            lines.append(f"\t{owner}_on_{hook.handled_as}({', '.join(('ev', *names))});")
            continue
        collects = f"cb_collects(ev, {bits[owner]:#x})"
        lines.append(f"\tstruct cb_{owner} *for_{owner} = {collects} ? cb_{owner}.lookup(&zero) : NULL;")
        lines.append(f"\tif (for_{owner})")
        lines.append(f"\t\t{owner}_on_{hook.handled_as}({', '.join(('ev', f'for_{owner}', *names))});")
    return "\n".join([*lines, "}", ""])


def maps_of(text: str) -> tuple[str, ...]:
    """Every map of the unit, in order: `BPF_TABLE("hash", key, leaf, NAME, …)`, `BPF_ARRAY(NAME, …)`."""
    tables = re.findall(r"^BPF_(?:F_)?TABLE\([^,]+,[^,]+,[^,]+, (\w+),", text, re.MULTILINE)
    simple = re.findall(r"^BPF_(?:(?:PERCPU_|PERF_)?ARRAY|RINGBUF_OUTPUT)\((\w+),", text, re.MULTILINE)
    return tuple(tables + simple)
