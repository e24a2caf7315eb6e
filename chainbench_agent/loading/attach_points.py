"""Finds the sources of a hook that this kernel has, by its BTF: the prototype decides, never a version number."""

from __future__ import annotations

import re
from collections.abc import Collection

from chainbench_agent.catalog import Hook, Source
from chainbench_agent.headers.btf import Btf

TRACEPOINTS = ("raw_tracepoint", "tp_btf")
NO_TRACEPOINT, NO_FUNCTION = MISSING = ("this kernel has no such tracepoint", "this kernel has no such function")


def eligible(hook: Hook, btf: Btf, options: Collection[str] = ()) -> tuple[list[Source], str]:
    """The sources whose arguments match the hook's parameters, and the reasons against the others.

    A hook of an option that is not among `options` has no sources.  For an optional hook, a source that this kernel
    does not have is no reason.
    """
    if hook.option and hook.option not in options:
        return [], f"not asked for: start the agent with --probes {hook.option}"
    fitting: list[Source] = []
    reasons: list[str] = []
    for source in hook.sources:
        reason = _mismatch(source, hook, btf)
        if reason in MISSING and hook.optional:
            continue
        if reason:
            reasons.append(f"{source}: {reason}")
        else:
            fitting.append(source)
    return fitting, "; ".join(reasons)


def is_needed(hook: Hook, btf: Btf) -> bool:
    """Whether this kernel needs the hook; otherwise another hook has its events."""
    if not hook.unless:
        return True
    args = btf.tracepoint_args if hook.unless.kind in TRACEPOINTS else btf.function_args
    return args(hook.unless.target) is None


def _mismatch(source: Source, hook: Hook, btf: Btf) -> str:
    if source.kind in ("perf", "uprobe", "uretprobe"):  # these do not depend on the kernel
        return ""
    if source.kind in TRACEPOINTS:
        offered = btf.tracepoint_args(source.target)
        if offered is None:
            return NO_TRACEPOINT
    else:
        offered = btf.function_args(source.target)
        if offered is None:
            return NO_FUNCTION
        if source.kind in ("fexit", "kretprobe"):
            offered += (btf.function_result(source.target),)
    places = (*source.args, *range(len(source.own))) if source.args else range(len(hook.params))
    for param, place in zip((*hook.params, *source.own), places, strict=True):
        if isinstance(place, str):
            continue
        if place >= len(offered):
            return f"this kernel passes no argument {place} ({param})"
        if not _compatible(param, offered[place]):
            return f"this kernel passes {offered[place]!r} where {param!r} is expected"
    return ""


def _compatible(param: str, offered: str) -> bool:
    """Pointers must be to the same type; integers may have different names."""
    expected = re.sub(r"\w+$", "", param).replace(" ", "")
    found = offered.replace("const ", "").replace(" ", "")
    if "*" in expected or "*" in found:
        return expected == found
    return not found.startswith(("struct", "union"))
