"""Units are part of the name."""

import pytest

from chainbench_agent.catalog import Counter, Distribution, Table
from chainbench_agent.evidence.metric_keys import reported_key
from chainbench_agent.probes import CATALOG


@pytest.mark.parametrize(
    ("metric", "key"),
    [
        (Counter(name="forks", help=""), "forks"),
        (Counter(name="on_cpu_ns", help=""), "on_cpu_ms"),
        (Table(name="idle_ns", help="", entries=1, names="", label=""), "idle_ms"),
        (Distribution(name="wakeup_latency_ns", help=""), "wakeup_latency_us"),
        (Counter(name="ns_seen", help=""), "ns_seen"),
    ],
)
def test_nanoseconds_become_what_people_read(metric, key):
    """Milliseconds for totals, microseconds for latencies; other names stay."""
    assert reported_key(metric) == key


def test_no_key_says_nanoseconds():
    """No metric of the catalogue does; and no two metrics of a module share a key."""
    for module in CATALOG:
        keys = [reported_key(metric) for metric in module.reported]
        assert not [key for key in keys if key.endswith("_ns")]
        assert len(keys) == len(set(keys))
