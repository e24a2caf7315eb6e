"""Facts of the host without which a zero would be a guess.  A metric names the one it needs (`Metric.needs`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from chainbench_agent.headers.btf import Btf
from chainbench_agent.loading import pmu_events, preempt_count
from chainbench_agent.probes import PMU_EVENTS

CPUFREQ = Path("/sys/devices/system/cpu/cpufreq")


def _cfs_bandwidth(btf: Btf) -> str:
    if btf.member_offset("task_group", "cfs_bandwidth") is None:
        return "this kernel is built without CONFIG_CFS_BANDWIDTH"
    return ""


def _cpufreq_governor(_btf: Btf) -> str:
    policies = list(CPUFREQ.glob("policy*/scaling_driver"))
    if not policies:
        return "this machine has no cpufreq driver, so frequency changes cannot be seen"
    driver = policies[0].read_text().strip()
    if driver in ("intel_pstate", "amd-pstate-epp"):
        return f"the driver {driver} changes frequencies in hardware, where no tracepoint sees it"
    return ""


def _lock_kinds(btf: Btf) -> str:
    if btf.member_offset("mutex", "rtmutex") is not None:
        return (
            "this is a PREEMPT_RT kernel, where all sleeping locks are rt_mutexes and no hook tells their kinds apart"
        )
    return ""


def _counter(name: str, _btf: Btf) -> str:
    return pmu_events.lacking(name)


FACTS: dict[str, Callable[[Btf], str]] = {
    "cfs_bandwidth": _cfs_bandwidth,
    "cpufreq_governor": _cpufreq_governor,
    "interrupt_context": preempt_count.lacking,
    **{f"counter:{name}": partial(_counter, name) for name in (*PMU_EVENTS, "cache_hits", "any")},
    "lock_kinds": _lock_kinds,
}
"""Name → a check that answers, from the kernel's BTF or from this host, why it is not so; empty: it is."""
