"""One program per hook: writes the C unit that BCC compiles.

Several modules want the same hot hooks.  Each hook gets one generated entry per source, which fetches the hook's
parameters the way that source passes them, checks that a run is on, takes the time once, and calls the inlined
handlers of the enabled modules.  The unit reads, in order: sizes, shared headers, the per-CPU struct and the C file of
each module, `cb_raise_<hook>` for what the state machines raise, these, the same for all other hooks, the entries.

A state machine is a support file NAME.h that handles hooks, as `NAME_on_HOOK`, and raises others for the modules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from chainbench_agent.catalog import (
    DISKS,
    HISTOGRAM_SLOTS,
    SLOTS_PER_OCTAVE_BITS,
    Counter,
    Distribution,
    Hook,
    Keyed,
    Module,
    Scratch,
    Source,
    Table,
)
from chainbench_agent.host.syscall_names import syscalls
from chainbench_agent.loading import event_records, process_records
from chainbench_agent.loading.entry_functions import PARAMETERS_KEPT, Program, entry, program_name, typed_last
from chainbench_agent.probes import CALLS, DIRECTORY, FIELDS

TASK_RECORDS = 65536
"""Threads alive at once that can be told apart, 192 bytes each; fewer where the kernel numbers fewer (bpf_unit.py)."""

MEMBERS = 16384
"""Processes alive at once that a target may have; what is above is counted as lost."""

PROCESSES = 4096
"""Processes that can be told apart, a power of two; what others did is in the sums."""

ENDED_THREADS = 2048
"""Ended threads of a target that are kept singly; the others are in the sum."""

CALL_NUMBERS = 512
"""System call numbers that may be followed; Linux 7.2 ends at 471."""

REQUESTS = 16384
"""Block requests at once, a power of two: 16 devices with 1,024 tags each; one without room is counted as lost."""

BIO_SETS = 2048
"""A power of two; each holds 7 bios, and an old one goes when a new one comes (see request.h)."""

CALLS_UNDER_WAY = 16384
"""Calls of kernel functions at once whose returns are waited for (see returns.h); one above is counted as lost."""

INTERRUPTED = 16384
"""Threads at once whose wait was interrupted, and whose next call tells whether it goes on (see calls.h)."""

LOCK_WAITS = 16384
"""Threads that wait for a lock of the kernel at once, a power of two; what is above is counted as lost."""

STATE_MACHINES = {
    "sched": "lib/task.h",
    "calls": "lib/task.h",
    "block": "machines/request.h",
    "contention": "machines/lock_wait.h",
}
"""Name of the support file → the header with its records, which modules read.

One is in the unit when a module handles what it raises; sched always, because every target has a ledger.
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """What goes to the compiler, and what is expected of it."""

    text: str
    programs: tuple[Program, ...]
    maps: tuple[str, ...]
    follows: frozenset[str] = frozenset()
    """The hooks by which the target is followed (probes/machines/follow.h)."""


def handlers(text: str, owner: str) -> frozenset[str]:
    """The hooks for which a C file defines handlers: `OWNER_on_HOOK(`."""
    return frozenset(re.findall(rf"^static __always_inline void\s{owner}_on_(\w+)\(", text, re.MULTILINE))


def module_text(name: str) -> str:
    """A module's C: NAME.h, where there is one, stands before NAME.c."""
    files = (DIRECTORY / f"{name}.{suffix}" for suffix in "hc")
    return "".join(file.read_text() for file in files if file.exists())


def fuse(
    modules: Iterable[Module],
    hooks: Iterable[Hook],
    sources: Callable[[Hook], Iterable[Source]],
    has_field: Callable[[str], bool],
    host: Mapping[str, int] = MappingProxyType({}),
) -> Unit:
    """`sources(hook)`: the places to try; `has_field("struct.member")` asks the BTF; `host`: further CB_<key>."""
    modules, hooks = tuple(modules), tuple(hooks)
    texts = {module.name: module_text(module.name) for module in modules}
    handled = {name: handlers(text, name) for name, text in texts.items()}
    machines = _machines(frozenset().union(*handled.values()))
    handled = {name: handlers(text, name) for name, text in machines.items()} | handled
    follows = handlers(_read("machines/follow.h"), "follow")
    raised = frozenset().union(*map(_raised_in, machines.values()))
    bits = {module.name: 1 << place for place, module in enumerate(modules)}
    options = {hook.option for hook in hooks if hook.option and any(sources(hook))}
    wanted = [hook for hook in hooks if hook.name in follows or any(hook.name in on for on in handled.values())]
    programs = [program for hook in wanted for program in _programs(hook, sources(hook))]
    placed = {hook.name: hook for hook in hooks}
    records = dict.fromkeys(STATE_MACHINES[name] for name in machines)
    headers = (
        *("lib/process.h", "lib/target.h", "lib/call_kinds.h"),
        *records,
        *("machines/quota.h", "machines/follow.h"),
    )
    parts = [
        _defines(has_field, {"COUNTERS": 0, "TASKS": TASK_RECORDS, "SLOW_IO_NS": 0} | dict(host)),
        *map(_read, ("lib/common.h", "lib/compat.h")),
        process_records.c_struct(modules),
        *map(_read, headers),
        event_records.text(modules, (DIRECTORY / "lib/events.h").read_text() if "EVENTS" in host else ""),
        *(_values(module, options) + texts[module.name] for module in modules),
        *(_raise(hook, handled, bits) for hook in hooks if hook.name in raised),
        *machines.values(),
        *(_raise(hook, handled, bits) for hook in wanted if not hook.raised_on),
        _read("lib/identify.h"),
        _read("lib/returns.h") if any(len(program.parts) > 1 for program in programs) else "",
        *(entry(program, placed[program.hook], follows, number) for number, program in typed_last(programs)),
    ]
    text = re.sub(r"^#pragma once\n", "", "\n".join(parts), flags=re.MULTILINE)
    return Unit(text, tuple(programs), _maps(text), follows)


def _programs(hook: Hook, sources: Iterable[Source]) -> list[Program]:
    return [Program(program_name(hook, source, index), hook.name, source) for index, source in enumerate(sources)]


def _read(name: str) -> str:
    return (DIRECTORY / name).read_text()


def _machines(wanted: frozenset[str]) -> dict[str, str]:
    """The state machines, with their text, that raise one of the hooks which modules want."""
    texts = {name: _read(f"machines/{name}.h") for name in STATE_MACHINES}
    return {name: text for name, text in texts.items() if name == "sched" or wanted & _raised_in(text)}


def _raised_in(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\bcb_raise_(\w+)\(", text))


def _defines(has_field: Callable[[str], bool], host: Mapping[str, int]) -> str:
    lines = [
        f"#define CB_SLOTS {HISTOGRAM_SLOTS}",
        f"#define CB_SLOT_BITS {SLOTS_PER_OCTAVE_BITS}",
        f"#define CB_MEMBERS {MEMBERS}",
        f"#define CB_ENDED_THREADS {ENDED_THREADS}",
        f"#define CB_PROCESSES {PROCESSES}",
        f"#define CB_CALL_NUMBERS {CALL_NUMBERS}",
        f"enum cb_call {{ {', '.join(f'CB_CALL_{kind}' for kind in call_kinds())} }};",
        f"#define CB_REQUESTS {REQUESTS}",
        f"#define CB_DISKS {DISKS}",
        f"#define CB_BIO_SETS {BIO_SETS}",
        f"#define CB_LOCK_WAITS {LOCK_WAITS}",
        f"#define CB_INTERRUPTED {INTERRUPTED}",
        f"#define CB_ENTERED_ENTRIES {CALLS_UNDER_WAY}",
        f"#define CB_ENTERED_WITH {PARAMETERS_KEPT}",
        *(f"#define CB_{name} {value}" for name, value in host.items()),
        *(f"#define CB_HAS_{name}" for name, field in FIELDS.items() if has_field(field)),
    ]
    return "\n".join(lines) + "\n"


def followed_calls(machine: str) -> Iterator[tuple[int, int, int]]:
    """What goes into cb_call_kinds: number, its kind in 64-bit programs of `machine`, its kind in 32-bit ones."""
    kinds = {name: kind for kind, group in enumerate(call_kinds()) for name in CALLS.get(group, ())}
    wide, narrow = syscalls(machine), syscalls("i386")
    for number in range(CALL_NUMBERS):
        in_wide, in_narrow = (kinds.get(table.get(number, ""), 0) for table in (wide, narrow))
        if in_wide or in_narrow:
            yield number, in_wide, in_narrow


def call_kinds() -> tuple[str, ...]:
    """What C calls CB_CALL_<name>, by its number."""
    return ("NONE", *CALLS, "UNSEEN", "INTERRUPTED")


def _values(module: Module, options: Collection[str]) -> str:
    """The sizes of a module's maps, its per-CPU struct and the map of that."""
    sized = [m for m in (*module.metrics, *module.scratch) if isinstance(m, Table | Keyed | Scratch)]
    prefix = module.name
    return "\n".join(
        [
            f"/* ---- {prefix}: {module.question} */",
            *(f"#define {prefix.upper()}_{m.name.upper()}_ENTRIES {_entries(m, options)}" for m in sized),
            f"struct cb_{prefix} {{",
            *(f"\t{_field(m)};" for m in module.per_cpu),
            *(f"\tu64 {s.name}[{s.entries}];" for s in module.scratch if s.field),
            "};",
            f"BPF_PERCPU_ARRAY(cb_{prefix}, struct cb_{prefix}, 1);",
            "",
        ]
    )


def _entries(sized: Table | Keyed | Scratch, options: Collection[str]) -> int:
    option = "" if isinstance(sized, Table) else sized.option
    return sized.entries if not option or option in options else 1


def _field(metric: object) -> str:
    match metric:
        case Distribution(name=name):
            return f"struct cb_histogram {name}"
        case Table(name=name, entries=entries):
            return f"u64 {name}[{entries}]"
        case Counter(name=name):
            return f"u64 {name}"
    raise TypeError(f"{metric!r} has no field in the per-CPU struct")


def _raise(hook: Hook, handled: Mapping[str, frozenset[str]], bits: Mapping[str, int]) -> str:
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
            lines.append(f"\t{owner}_on_{hook.name}({', '.join(('ev', *names))});")
            continue
        collects = f"cb_collects(ev, {bits[owner]:#x})"
        lines.append(f"\tstruct cb_{owner} *for_{owner} = {collects} ? cb_{owner}.lookup(&zero) : NULL;")
        lines.append(f"\tif (for_{owner})")
        lines.append(f"\t\t{owner}_on_{hook.name}({', '.join(('ev', f'for_{owner}', *names))});")
    return "\n".join([*lines, "}", ""])


def _maps(text: str) -> tuple[str, ...]:
    """Every map of the unit, in order: `BPF_TABLE("hash", key, leaf, NAME, …)`, `BPF_ARRAY(NAME, …)`."""
    tables = re.findall(r"^BPF_(?:F_)?TABLE\([^,]+,[^,]+,[^,]+, (\w+),", text, re.MULTILINE)
    simple = re.findall(r"^BPF_(?:(?:PERCPU_|PERF_)?ARRAY|RINGBUF_OUTPUT)\((\w+),", text, re.MULTILINE)
    return tuple(tables + simple)
