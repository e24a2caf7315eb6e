"""The entries of the unit: one C function per hook and source, which fetches the hook's parameters and raises it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from chainbench_agent.spec import Hook, Kind, Source

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


def program_name(hook: Hook, source: Source, index: int) -> str:
    return _NAME.get(source.kind, f"cb_{hook.name}_{index}").format(source.target)


def entry(program: Program, hook: Hook, follows: frozenset[str]) -> str:
    """`follows`: the hooks of target.h, which is told of them first."""
    context, argument = _CONTEXT[program.kind]
    own = program.source.own
    places = (*range(len(own)), *(program.source.args or range(len(hook.params))))
    clock = "bpf_ktime_get_ns()" if hook.timed else "0"
    names, lines = [], []
    for param, place in zip((*own, *hook.params), places, strict=True):
        kind, name = re.fullmatch(r"(.*\W)(\w+)", param).groups()  # type: ignore[union-attr]
        value = argument.format(place, place + 1) if isinstance(place, int) else place
        lines.append(f"\t{kind}{name} = ({kind.strip()}){value};")
        names.append(name)
    names = names[len(own) :]
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
