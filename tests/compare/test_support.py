from system_calls import syscalls

from chainbench_agent.compare.support import SUPPORT
from chainbench_agent.evidence.metric_keys import reported_key
from chainbench_agent.probes import CATALOG
from chainbench_agent.probes.wait_categories import CATEGORIES

REPORTED = {module.section_key: {reported_key(metric) for metric in module.reported} for module in CATALOG}
CALLS = {"total", *syscalls().names()}


def test_every_metric_is_declared():
    """A metric that is renamed must be renamed here as well: it would silently explain nothing."""
    for support in (one for supports in SUPPORT.values() for one in supports):
        section, _, key = support.path.partition(".")
        known = REPORTED[section] | (CALLS if section == "syscall_counts" else set())

        assert (key or "latency_us") in known, support.path  # a section can be a distribution itself


def test_every_line_is_one_of_the_ledger():
    assert set(SUPPORT) <= {"on_cpu", "runnable", "throttled", *CATEGORIES}


def test_at_most_six_metrics_support_a_line():
    """More would need more than 5 + 5 runs, with Holm's adjustment."""
    assert all(1 <= len(metrics) <= 6 for metrics in SUPPORT.values())
