import pytest

from chainbench_agent.catalog import Counter, Derived, Distribution, Module, Table
from chainbench_agent.export.families import REPORT_FAMILIES, RUN_FAMILIES, RUNS
from chainbench_agent.export.series import catalog_families, metric_family
from chainbench_agent.probes import CATALOG

GIVEN = {
    "chainbench_runqlat_microseconds": "histogram",
    "chainbench_biolatency_microseconds": "histogram",
    "chainbench_offcpu_milliseconds_total": "gauge",
    "chainbench_duration_milliseconds": "gauge",
    "chainbench_gain_percent": "gauge",
    "chainbench_exec_count_total": "counter",
    "chainbench_syscall_count_total": "counter",
    "chainbench_runs_total": "counter",
}


def family_of(metric):
    return metric_family(Module(name="cpu", question="?", metrics=(metric,)), metric)


@pytest.mark.parametrize(
    ("metric", "name", "kind"),
    [
        (Counter(name="wakeups", help=""), "chainbench_cpu_wakeups_total", "counter"),
        (Counter(name="cpu_migrations", help=""), "chainbench_cpu_migrations_total", "counter"),
        (Counter(name="on_cpu_ns", help=""), "chainbench_cpu_on_cpu_seconds_total", "counter"),
        (
            Table(name="idle_ns", help="", entries=1, names="", label="s"),
            "chainbench_cpu_idle_seconds_total",
            "counter",
        ),
        (Distribution(name="wakeup_latency_ns", help=""), "chainbench_cpu_wakeup_latency_seconds", "histogram"),
        (Derived(name="throttled_ms", help="", of=()), "chainbench_cpu_throttled_seconds_total", "counter"),
        (Derived(name="avg_wait_us", help="", of=(), gauge=True), "chainbench_cpu_avg_wait_seconds", "gauge"),
        (Counter(name="x_ns", help="", prometheus="given_milliseconds"), "given_milliseconds", "counter"),
    ],
)
def test_name_and_kind_follow_from_the_declaration(metric, name, kind):
    family = family_of(metric)
    assert (family.name, family.kind) == (name, kind)


@pytest.mark.parametrize(
    ("metric", "value", "exported"),
    [
        (Counter(name="wakeups", help=""), 7, 7),
        (Counter(name="on_cpu_ns", help=""), 1500.000001, 1.500000001),
        (Distribution(name="run_ns", help=""), 2.048, 0.000002048),
        (Counter(name="a_ns", help="", prometheus="given_milliseconds"), 1.5, 1.5),
        (Distribution(name="a_ns", help="", prometheus="given_microseconds"), 1.5, 1.5),
        (Counter(name="a_ns", help="", prometheus="given_microseconds"), 1.5, 1500),
    ],
)
def test_values_are_in_the_unit_of_the_name(metric, value, exported):
    assert family_of(metric).in_unit(value) == exported


def test_a_list_has_series_only_if_its_declaration_names_them():
    """The labels of a list are whatever the workload brings."""
    bare = Derived(name="top", help="", of=(), label="command", value="count")
    named = Derived(name="top", help="", of=(), label="reason", value="ms", prometheus="chainbench_top_seconds")
    assert family_of(bare) is None
    assert family_of(named).in_unit(1500) == 1.5


def test_the_names_that_outside_dashboards_rely_on():
    families = (*catalog_families(CATALOG), *RUN_FAMILIES, *REPORT_FAMILIES, RUNS)
    found = {family.name: family.kind for family in families}
    assert {name: found.get(name) for name in GIVEN} == GIVEN


def test_no_two_metrics_share_a_name():
    names = [family.name for family in (*catalog_families(CATALOG), *RUN_FAMILIES, *REPORT_FAMILIES, RUNS)]
    assert len(names) == len(set(names))
