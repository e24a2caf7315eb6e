"""Where the kernel keeps the preemption count, which says that an interrupt is being served (probes/compat.h)."""

from __future__ import annotations

from functools import cache

from chainbench_agent.headers.btf import Btf
from chainbench_agent.headers.btf_types import Kind, Section

# Linux 64701838bf05 ("x86/percpu: Move preempt_count next to current_task") (in v6.2) put it into a struct;
# 46e8fff6d45f ("x86/preempt: Move preempt count to percpu hot section") (in v6.15) took it out again.
_PLACES = (("__preempt_count", ""), ("pcpu_hot", "preempt_count"))


def preempt_count(btf: Btf) -> int | None:
    """How far behind the run queue of a CPU (or, negative, before it) that CPU's preemption count lies."""
    queue = _per_cpu(btf, "runqueues")
    if queue is None or btf.member_offset("cfs_rq", "rq") is None:
        return None
    for variable, member in _PLACES:
        place = _per_cpu(btf, variable)
        inside = btf.member_offset(variable, member) if member else 0
        if place is not None and inside is not None:
            return place + inside - queue
    return None


@cache
def lacking() -> str:
    """Why it is not known whether an interrupt is being served; empty: it is."""
    btf = Btf.load()
    if btf.member_offset("thread_info", "preempt_count") is not None or preempt_count(btf) is not None:
        return ""
    return "this kernel's BTF does not tell where the preemption count lies, so interrupts cannot be told from threads"


def _per_cpu(btf: Btf, name: str) -> int | None:
    """Where a per-CPU variable lies in the memory of its CPU."""
    variable = btf.find(name, Kind.VAR)
    section = btf.find(".data..percpu", Kind.DATASEC)
    if variable is None or not isinstance(section, Section):
        return None
    return next((offset for type_id, offset in section.variables if type_id == variable.id), None)
