"""Finds the kernel's preemption count, which shows whether an interrupt is being served (probes/lib/compat.h)."""

from __future__ import annotations

import re
from pathlib import Path

from chainbench_agent.headers.btf import Btf
from chainbench_agent.headers.btf_types import Kind, Section

KALLSYMS = Path("/proc/kallsyms")

# Linux 64701838bf05 ("x86/percpu: Move preempt_count next to current_task") (in v6.2) put it into a struct;
# 46e8fff6d45f ("x86/preempt: Move preempt count to percpu hot section") (in v6.15) took it out again.
_COUNTS = (("__preempt_count", ""), ("pcpu_hot", "preempt_count"))
_QUEUE = "runqueues"


def preempt_count(btf: Btf) -> int | None:
    """The distance from a CPU's run queue to its preemption count, in bytes; None: not known."""
    places = _in_btf(btf) or _in_kallsyms()
    if _QUEUE not in places or btf.member_offset("cfs_rq", "rq") is None:
        return None
    for variable, member in _COUNTS:
        inside = btf.member_offset(variable, member) if member else 0
        if variable in places and inside is not None:
            return places[variable] + inside - places[_QUEUE]
    return None


def lacking(btf: Btf) -> str:
    """Why it cannot be known whether an interrupt is being served; empty: it can."""
    if btf.member_offset("thread_info", "preempt_count") is not None or preempt_count(btf) is not None:
        return ""
    return (
        "neither BTF nor /proc/kallsyms tells where the preemption count lies, so interrupts cannot be "
        "distinguished from threads: allow kernel addresses (kernel.kptr_restrict=1)"
    )


def _in_btf(btf: Btf) -> dict[str, int]:
    """Per-CPU variable → its offset in its CPU's memory; the BTF that pahole 1.18 to 1.21 wrote has none."""
    section = btf.find(".data..percpu", Kind.DATASEC)
    offsets = dict(section.variables) if isinstance(section, Section) else {}
    found = {name: btf.find(name, Kind.VAR) for name in (_QUEUE, *(name for name, _ in _COUNTS))}
    return {name: offsets[variable.id] for name, variable in found.items() if variable and variable.id in offsets}


def _in_kallsyms() -> dict[str, int]:
    """The same by kallsyms; empty if addresses are hidden, which makes them all zero."""
    names = "|".join((_QUEUE, *(name for name, _ in _COUNTS)))
    lines = re.findall(rf"^(\w+) \w ({names})$", KALLSYMS.read_text(), re.MULTILINE)
    places = {name: int(address, 16) for address, name in lines}
    return places if any(places.values()) else {}
