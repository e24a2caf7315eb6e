"""Writes the programs of a BPF unit: a C function per hook and source that fetches the parameters and raises the hook.

A kretprobe has two: when the function is entered, the parameters are fetched and saved (probes/lib/returns.h); when it
returns, they are taken from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from chainbench_agent.catalog import RESULT, Hook, Kind, Source

SAVED_PARAMETERS = 2
"""How many of a hook's parameters a kretprobe may need in addition to the result."""

_CONTEXT = {
    "raw_tracepoint": ("struct bpf_raw_tracepoint_args *ctx", "ctx->args[{}]"),
    "tp_btf": ("unsigned long long *ctx", "ctx[{}]"),
    "fentry": ("unsigned long long *ctx", "ctx[{}]"),
    "fexit": ("unsigned long long *ctx", "ctx[{}]"),
    "kprobe": ("struct pt_regs *ctx", "PT_REGS_PARM{1}(ctx)"),
    "kretprobe": ("struct pt_regs *ctx", "PT_REGS_PARM{1}(ctx)"),  # where it is entered
    "uprobe": ("struct pt_regs *ctx", "PT_REGS_PARM{1}(ctx)"),
    "uretprobe": ("struct pt_regs *ctx", ""),
    "perf": ("struct bpf_perf_event_data *ctx", ""),
}
# BCC finds the function of a tracing program by the program's name.
_NAME = {"fentry": "kfunc__{}", "fexit": "kretfunc__{}"}


@dataclass(frozen=True, slots=True)
class Program:
    """A C function of the unit, which feeds `hook` from `source`."""

    name: str
    hook: str
    source: Source

    @property
    def kind(self) -> Kind:
        return self.source.kind

    @property
    def parts(self) -> tuple[Program, ...]:
        """The programs that are loaded and attached together: a kretprobe, and the kprobe that saves what it needs."""
        places = {place for place in self.source.args if isinstance(place, int)} - {RESULT}
        if self.kind != "kretprobe" or not (places or self.source.own):
            return (self,)
        return Program(f"{self.name}_enters", self.hook, Source("kprobe", self.source.target)), self


@dataclass(frozen=True, slots=True)
class _Param:
    kind: str
    name: str
    place: int | str

    def is_(self, value: str) -> str:
        return f"\t{self.kind}{self.name} = ({self.kind.strip()}){value};"


def program_name(hook: Hook, source: Source, index: int) -> str:
    return _NAME.get(source.kind, f"cb_{hook.name}_{index}").format(source.target)


def entry(program: Program, hook: Hook, follows: frozenset[str], number: int = 0) -> str:
    """The C text.  `follows`: the hooks that follow.h handles first.  `number`: the program's own in its unit."""
    argument = _CONTEXT[program.kind][1]
    own, params = _params(program.source, hook)
    returns = program.kind in ("kretprobe", "uretprobe")
    at_return = [param for param in params if returns and param.place == RESULT]
    fetched = [
        param.is_(argument.format(param.place, param.place + 1) if isinstance(param.place, int) else param.place)
        for param in (*own, *params)
        if param not in at_return
    ]
    result = [param.is_("PT_REGS_RC(ctx)") for param in at_return]
    if program.parts == (program,):
        return _function(program, _phase(hook, follows), [*fetched, *result, *_raising(program, hook, params, follows)])
    saved = [param for param in params if param not in at_return]
    take = [
        "\tstruct cb_entered entered;",
        f"\tif (!cb_return({number}, &entered))",
        "\t\treturn 0;",
        *(param.is_(f"entered.with[{index}]") for index, param in enumerate(saved)),
    ]
    save = [
        f"\tstruct cb_entered entered = {{ .with = {{ {', '.join(f'(u64){param.name}' for param in saved)} }} }};",
        "\tstruct cb_event event = { .ctx = ctx, .config = config };",
        f"\tcb_enter(&event, {number}, &entered);",
    ]
    return "\n".join(
        [
            _function(program.parts[0], "", [*fetched, *save]),
            _function(program, _phase(hook, follows), [*take, *result, *_raising(program, hook, params, follows)]),
        ]
    )


def typed_last(programs: Iterable[Program]) -> list[tuple[int, Program]]:
    """The programs by number, in the order of their text.

    BCC reads kernel memory by itself through a pointer from a raw tracepoint, in a function whose first caller passes
    one.  It does not do so for pointers from a tp_btf, so a tp_btf must never be the first caller.
    """
    return sorted(enumerate(programs), key=lambda numbered: numbered[1].kind == "tp_btf")


def _params(source: Source, hook: Hook) -> tuple[list[_Param], list[_Param]]:
    """The arguments of the source that expressions use, and the hook's parameters."""
    places = (*range(len(source.own)), *(source.args or range(len(hook.params))))
    found = []
    for param, place in zip((*source.own, *hook.params), places, strict=True):
        kind, name = re.fullmatch(r"(.*\W)(\w+)", param).groups()  # type: ignore[union-attr]
        found.append(_Param(kind, name, place))
    return found[: len(source.own)], found[len(source.own) :]


def _function(program: Program, unless: str, body: Iterable[str]) -> str:
    return "\n".join(
        [
            f"// {program.source}",
            f"int {program.name}({_CONTEXT[program.kind][0]})",
            "{",
            "\tint zero = 0;",
            "\tstruct cb_config *config = cb_config.lookup(&zero);",
            f"\tif (!config{unless})",
            "\t\treturn 0;",
            *body,
            "\treturn 0;",
            "}",
            "",
        ]
    )


def _phase(hook: Hook, follows: frozenset[str]) -> str:
    return f" || config->phase {'== CB_OFF' if hook.name in follows else '!= CB_ON'}"


def _raising(program: Program, hook: Hook, params: Iterable[_Param], follows: frozenset[str]) -> list[str]:
    """The target is followed before anything is counted, and also before the run begins."""
    arguments = ", ".join(("&event", *(param.name for param in params)))
    clock = "bpf_ktime_get_ns()" if hook.timed else "0"
    typed = ", .typed = true" if program.kind == "tp_btf" else ""
    following = [f"\tfollow_on_{hook.name}({arguments});", "\tif (config->phase != CB_ON)", "\t\treturn 0;"]
    return [
        f"\tstruct cb_event event = {{ .ctx = ctx, .config = config, .now_ns = {clock}{typed} }};",
        *(following if hook.name in follows else []),
        f"\tcb_raise_{hook.name}({arguments});",
    ]
