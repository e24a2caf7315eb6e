"""Counts as a sample has them."""

import pytest

from chainbench_agent.abi.histogram import HistogramCounts, slot_of
from chainbench_agent.catalog import HISTOGRAM_SLOTS, Counter, Distribution, Table
from chainbench_agent.evidence.sample import Members, Sample
from chainbench_agent.probes import CATALOG


def histogram(*values):
    """The histogram that the kernel would have counted for these nanoseconds."""
    slots = [0] * HISTOGRAM_SLOTS
    for value in values:
        slots[slot_of(value)] += 1
    return HistogramCounts(tuple(slots), sum(values), min(values, default=None), max(values, default=None))


def nothing(metric):
    match metric:
        case Distribution():
            return histogram()
        case Table(entries=entries):
            return (0,) * entries
        case Counter():
            return 0
    return {}


@pytest.fixture
def counted():
    """`counted(1, 2, 3)` → the histogram of these values."""
    return histogram


@pytest.fixture
def sample():
    """`sample(at_ns, cpu={"on_cpu_ns": 5}, tasks=…)` → all modules, zero but for what is given."""
    parts = {"loss": {}, "programs": {}, "tasks": (), "processes": (), "members": Members(), "kernel": {}, "run": 0}

    def of(at_ns, modules=CATALOG, **given):
        values = {
            module.name: {metric.name: nothing(metric) for metric in (*module.per_cpu, *module.keyed, *module.per_disk)}
            | {record.name: {} for record in module.per_cpu_records}
            | given.get(module.name, {})
            for module in modules
        }
        parts["procfs"] = dict.fromkeys((m.field for module in modules for m in module.procfs), 0)
        return Sample(at_ns, values, **{name: given.get(name, none) for name, none in parts.items()})

    return of
