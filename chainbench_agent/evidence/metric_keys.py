"""What a metric is called in the evidence."""

from __future__ import annotations

from chainbench_agent.catalog import Distribution, Metric


def reported_key(metric: Metric) -> str:
    """`on_cpu_ns` → `on_cpu_ms`; a distribution's `wakeup_latency_ns` → `wakeup_latency_us`."""
    if not metric.name.endswith("_ns"):
        return metric.name
    return metric.name.removesuffix("_ns") + ("_us" if isinstance(metric, Distribution) else "_ms")
