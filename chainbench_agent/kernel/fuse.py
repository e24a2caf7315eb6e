"""One program per hook: writes the C unit that BCC compiles.

Several modules want the same hot hooks.  Each hook gets one generated entry per source, which fetches the hook's
parameters the way that source passes them, checks that a run is on, takes the time once, and calls the inlined
handlers of the enabled modules.  The unit reads, in order: sizes, shared headers, the per-CPU struct and the C file of
each module, `cb_raise_<hook>` for each hook, the scheduler's state machine, the entries.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from chainbench_agent.probes import DIRECTORY, FIELDS
from chainbench_agent.spec import (
    HISTOGRAM_SLOTS,
    SLOTS_PER_OCTAVE_BITS,
    Counter,
    Distribution,
    Hook,
    Keyed,
    Kind,
    Module,
    Scratch,
    Source,
    Table,
)

TASK_RECORDS = 65536
"""Threads alive at once that can be told apart; 104 bytes each."""

MEMBERS = 32768
"""Processes alive at once that a target may have; what is above is counted as lost."""

PROCESSES = 4096
"""Processes that can be told apart, a power of two; what others did is in the sums."""

ENDED_THREADS = 2048
"""Ended threads of a target that are kept singly; the others are in the sum."""

_CONTEXT = {
    "raw_tracepoint": ("struct bpf_raw_tracepoint_args *ctx", "ctx->args[{}]"),
    "fentry": ("unsigned long long *ctx", "ctx[{}]"),
    "fexit": ("unsigned long long *ctx", "ctx[{}]"),
    "kprobe": ("struct pt_regs *ctx", "PT_REGS_PARM{1}(ctx)"),
    "kretprobe": ("struct pt_regs *ctx", "PT_REGS_RC(ctx)"),
    "perf": ("struct bpf_perf_event_data *ctx", ""),
}
# BCC finds the function of a tracing program by the program's name.
_NAME = {"fentry": "kfunc__{}", "fexit": "kretfunc__{}"}


@dataclass(frozen=True, slots=True)
class Program:
    """An entry of the unit: the C function that feeds `hook` from `source`."""

    name: str
    hook: str
    source: Source

    @property
    def kind(self) -> Kind:
        return self.source.kind


@dataclass(frozen=True, slots=True)
class Unit:
    """What goes to the compiler, and what is expected of it."""

    text: str
    programs: tuple[Program, ...]
    maps: tuple[str, ...]
    follows: frozenset[str] = frozenset()
    """The hooks by which the target is followed (probes/target.h)."""


def handlers(text: str, owner: str) -> frozenset[str]:
    """The hooks for which a C file defines handlers: `OWNER_on_HOOK(`."""
    return frozenset(re.findall(rf"^static __always_inline void {owner}_on_(\w+)\(", text, re.MULTILINE))


def module_text(name: str) -> str:
    """A module's C: NAME.h, where there is one, stands before NAME.c."""
    files = (DIRECTORY / f"{name}.{suffix}" for suffix in "hc")
    return "".join(file.read_text() for file in files if file.exists())


def fuse(
    modules: Iterable[Module],
    hooks: Iterable[Hook],
    sources: Callable[[Hook], Iterable[Source]],
    has_field: Callable[[str], bool],
) -> Unit:
    """The unit for `modules`.  `sources(hook)` are the places to try, `has_field("struct.member")` asks the BTF."""
    modules, hooks = tuple(modules), tuple(hooks)
    texts = {module.name: module_text(module.name) for module in modules}
    handled = {name: handlers(text, name) for name, text in texts.items()}
    scheduler = (DIRECTORY / "sched.h").read_text()
    target = (DIRECTORY / "target.h").read_text()
    follows = handlers(target, "target")
    handled = {"sched": handlers(scheduler, "sched"), **handled}
    wanted = [hook for hook in hooks if hook.name in follows or any(hook.name in on for on in handled.values())]
    programs = [
        Program(_program_name(hook, source, index), hook.name, source)
        for hook in wanted
        for index, source in enumerate(sources(hook))
    ]
    raised = [hook for hook in hooks if hook.raised_on]
    placed = {hook.name: hook for hook in hooks}
    parts = [
        _defines(has_field),
        *((DIRECTORY / header).read_text() for header in ("common.h", "compat.h")),
        _process(modules),
        *((DIRECTORY / header).read_text() for header in ("process.h", "target.h", "task.h")),
        *(_values(module) + texts[module.name] for module in modules),
        *(_raise(hook, handled) for hook in raised),
        scheduler,
        *(_raise(hook, handled) for hook in wanted if not hook.raised_on),
        (DIRECTORY / "identify.h").read_text(),
        *(_entry(program, placed[program.hook], follows) for program in programs),
    ]
    text = re.sub(r"^#pragma once\n", "", "\n".join(parts), flags=re.MULTILINE)
    return Unit(text, tuple(programs), _maps(text), follows)


def _program_name(hook: Hook, source: Source, index: int) -> str:
    return _NAME.get(source.kind, f"cb_{hook.name}_{index}").format(source.target)


def _defines(has_field: Callable[[str], bool]) -> str:
    lines = [
        f"#define CB_SLOTS {HISTOGRAM_SLOTS}",
        f"#define CB_SLOT_BITS {SLOTS_PER_OCTAVE_BITS}",
        f"#define CB_TASKS {TASK_RECORDS}",
        f"#define CB_MEMBERS {MEMBERS}",
        f"#define CB_ENDED_THREADS {ENDED_THREADS}",
        f"#define CB_PROCESSES {PROCESSES}",
        *(f"#define CB_HAS_{name}" for name, field in FIELDS.items() if has_field(field)),
    ]
    return "\n".join(lines) + "\n"


def _process(modules: Iterable[Module]) -> str:
    """The record of a process: see probes/process.h."""
    counters = (f"{module.name}_{metric.name}" for module in modules for metric in module.per_process)
    fixed = ("u64 begin_ns", "u64 end_ns", "u32 tgid", "u32 run", "char comm[16]")
    return "\n".join(["struct cb_process {", *(f"\t{f};" for f in (*fixed, *(f"u64 {c}" for c in counters))), "};", ""])


def _values(module: Module) -> str:
    """The sizes of a module's maps, its per-CPU struct and the map of that."""
    sized = [m for m in (*module.metrics, *module.scratch) if isinstance(m, Table | Keyed | Scratch)]
    prefix = module.name
    return "\n".join(
        [
            f"/* ---- {prefix}: {module.question} */",
            *(f"#define {prefix.upper()}_{m.name.upper()}_ENTRIES {m.entries}" for m in sized),
            f"struct cb_{prefix} {{",
            *(f"\t{_field(m)};" for m in module.per_cpu),
            *(f"\tu64 {s.name}[{s.entries}];" for s in module.scratch if s.field),
            "};",
            f"BPF_PERCPU_ARRAY(cb_{prefix}, struct cb_{prefix}, 1);",
            "",
        ]
    )


def _field(metric: object) -> str:
    match metric:
        case Distribution(name=name):
            return f"struct cb_histogram {name}"
        case Table(name=name, entries=entries):
            return f"u64 {name}[{entries}]"
        case Counter(name=name):
            return f"u64 {name}"
    raise TypeError(f"{metric!r} has no field in the per-CPU struct")


def _raise(hook: Hook, handled: dict[str, frozenset[str]]) -> str:
    names = [re.sub(r".*\W", "", param) for param in hook.params]
    lines = [
        f"static __always_inline void cb_raise_{hook.name}({', '.join(('struct cb_event *ev', *hook.params))})",
        "{",
        "\tint zero = 0;",
    ]
    for owner, on in handled.items():
        if hook.name not in on:
            continue
        if owner == "sched":
            lines.append(f"\tsched_on_{hook.name}({', '.join(('ev', *names))});")
            continue
        lines.append(f"\tstruct cb_{owner} *for_{owner} = cb_{owner}.lookup(&zero);")
        lines.append(f"\tif (for_{owner})")
        lines.append(f"\t\t{owner}_on_{hook.name}({', '.join(('ev', f'for_{owner}', *names))});")
    return "\n".join([*lines, "}", ""])


def _entry(program: Program, hook: Hook, follows: frozenset[str]) -> str:
    context, argument = _CONTEXT[program.kind]
    places = program.source.args or tuple(range(len(hook.params)))
    clock = "bpf_ktime_get_ns()" if hook.timed else "0"
    names, lines = [], []
    for param, place in zip(hook.params, places, strict=True):
        kind, name = re.fullmatch(r"(.*\W)(\w+)", param).groups()  # type: ignore[union-attr]
        value = argument.format(place, place + 1) if isinstance(place, int) else place
        lines.append(f"\t{kind}{name} = ({kind.strip()}){value};")
        names.append(name)
    return "\n".join(
        [
            f"// {program.source}",
            f"int {program.name}({context})",
            "{",
            "\tint zero = 0;",
            "\tstruct cb_config *config = cb_config.lookup(&zero);",
            f"\tif (!config || config->phase {'== CB_OFF' if hook.name in follows else '!= CB_ON'})",
            "\t\treturn 0;",
            *lines,
            f"\tstruct cb_event event = {{ .ctx = ctx, .config = config, .now_ns = {clock} }};",
            *_following(hook, names, follows),
            f"\tcb_raise_{hook.name}({', '.join(('&event', *names))});",
            "\treturn 0;",
            "}",
            "",
        ]
    )


def _following(hook: Hook, names: list[str], follows: frozenset[str]) -> list[str]:
    """The target is followed before anything is counted, and before counting begins."""
    if hook.name not in follows:
        return []
    return [
        f"\ttarget_on_{hook.name}({', '.join(('&event', *names))});",
        "\tif (config->phase != CB_ON)",
        "\t\treturn 0;",
    ]


def _maps(text: str) -> tuple[str, ...]:
    """Every map of the unit, in order: `BPF_TABLE("hash", key, leaf, NAME, …)`, `BPF_ARRAY(NAME, …)`."""
    tables = re.findall(r"^BPF_(?:F_)?TABLE\([^,]+,[^,]+,[^,]+, (\w+),", text, re.MULTILINE)
    simple = re.findall(r"^BPF_(?:PERCPU_ARRAY|ARRAY|STACK_TRACE)\((\w+),", text, re.MULTILINE)
    return tuple(tables + simple)
