"""Made-up data has the shape of measured data, and can never be taken for it."""

from datetime import UTC, datetime

import pytest

from chainbench_agent import collector as collectors
from chainbench_agent.catalog import Counter, Distribution, Hook, HostNames, Keyed, Module, Table
from chainbench_agent.catalog.selection import Selection
from chainbench_agent.collector import mock
from chainbench_agent.collector.mock import MockCollector
from chainbench_agent.errors import InputError
from chainbench_agent.evidence.metric_keys import reported_key
from chainbench_agent.evidence.model import Run, Target
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.probes import CATALOG
from chainbench_agent.settings import load_settings

CONSUMERS_RELY_ON = {
    "runqlat": {"histogram", "p95_us"},
    "biolatency": {"histogram", "p95_us"},
    "offcpu": {"total_ms", "top_reasons"},
    "exec": {"exec_count", "top_commands"},
    "syscall_counts": {"futex", "fsync", "openat", "read", "write"},
    "cpu": {"context_switches", "cpu_migrations", "interrupts", "throttle_events"},
}
NAMES = tuple(name for module in CATALOG for name in module.names)
REASON = "this user may not load eBPF programs"


def run(duration_ms=1000.0, run_id="1", commit="abc123"):
    started_at = datetime(2026, 11, 22, tzinfo=UTC)
    return Run(
        id=run_id, machine="host", started_at=started_at, duration_ms=duration_ms, ended_by="stop", commit=commit
    )


@pytest.fixture
def collector():
    return MockCollector(REASON, "run it as root", CATALOG, {"kernel": "6.1"})


def test_marked_as_mock_everywhere(collector):
    collector.start(RunRequest(selection=Selection(NAMES)))
    evidence = collector.evidence(run()).as_json()
    assert (evidence["available"], evidence["source"], evidence["reason"]) == (False, "mock", REASON)
    for module in CATALOG:
        sources = evidence[module.section_key]["sources"]
        assert set(sources) == {reported_key(metric) for metric in module.reported}
        assert set(sources.values()) == {"mock"}


def test_nothing_is_claimed_that_only_a_measurement_can_know(collector):
    evidence = collector.evidence(run()).as_json()
    assert "loss" not in evidence
    assert "cost" not in evidence
    assert not evidence["cross_check"]


def test_the_target_is_named_and_nothing_is_claimed_of_it(collector):
    """It is never looked up, so it never ends, and has no number of processes."""
    collector.start(RunRequest(target=Target(kind="pid", pid=7), caller=70))
    evidence = collector.evidence(run()).as_json()

    assert evidence["target"] == {"kind": "pid", "pid": 7}
    assert "ledger" not in evidence
    assert collector.target_has_ended() is False
    collector.start(RunRequest())
    assert collector.evidence(run()).target == Target()


def test_only_what_was_chosen(collector):
    """As in a measured run; made-up numbers have no standard error."""
    collector.start(RunRequest(selection=Selection(("exec", "syscalls"), 10)))
    evidence = collector.evidence(run())
    assert evidence.sections.keys() == {"exec", "syscall_counts"}
    assert "sampling" not in evidence.sections["syscall_counts"]
    collector.start(RunRequest())
    assert len(collector.evidence(run()).sections) == len(CATALOG)


@pytest.mark.parametrize("duration_ms", [0.0, 0.001, 1000.0, 3_600_000.0])
def test_has_the_keys_that_consumers_rely_on(collector, duration_ms):
    evidence = collector.evidence(run(duration_ms)).as_json()
    assert {key: names - evidence[key].keys() for key, names in CONSUMERS_RELY_ON.items()} == {
        key: set() for key in CONSUMERS_RELY_ON
    }
    assert {"reason", "ms"} <= evidence["offcpu"]["top_reasons"][0].keys()
    assert {"command", "count"} <= evidence["exec"]["top_commands"][0].keys()


def test_every_reported_metric_of_the_catalogue_is_there(collector):
    """Also of modules that this test does not know; what belongs to an option, where that is asked for."""
    collector.start(RunRequest(selection=Selection(NAMES)))
    evidence = collector.evidence(run())
    assert evidence.sections.keys() == {module.section_key for module in CATALOG}
    for module in CATALOG:
        section = evidence.sections[module.section_key]
        inlined = {"latency_us", *(m.name for m in module.reported if getattr(m, "inline", False))}
        assert {reported_key(metric) for metric in module.reported} - inlined <= section.keys()


def test_histograms_add_up(collector):
    for name in ("runqlat", "biolatency"):
        section = collector.evidence(run()).as_json()[name]
        assert sum(bucket["count"] for bucket in section["histogram"]) == section["count"]
        assert section["min_us"] <= section["p50_us"] <= section["p95_us"] <= section["p99_us"] <= section["max_us"]
        assert section["count"] * section["min_us"] <= section["sum_us"] <= section["count"] * section["max_us"]


def test_equal_labels_give_equal_numbers(collector):
    assert collector.evidence(run(run_id="1")).sections == collector.evidence(run(run_id="2")).sections
    assert collector.evidence(run()).sections != collector.evidence(run(commit="def456")).sections


def test_counts_grow_with_the_run(collector):
    """As the counters of a running run must."""
    counts = [collector.evidence(run(ms)).sections["exec"]["exec_count"] for ms in (0.0, 500.0, 1000.0, 10_000.0)]
    assert counts == sorted(counts)
    assert counts[-1] > 5 * counts[1]


def test_a_new_module_needs_no_edit():
    module = Module(
        name="locks",
        question="?",
        metrics=(
            Counter(name="waits", help=""),
            Table(name="wait_ns", help="", entries=2, names=HostNames("kinds"), label="kind"),
            Distribution(name="hold_ns", help=""),
            Keyed(name="by_task", help="", key="struct task", entries=1, when_full="", reported=False),
        ),
    )
    section = MockCollector(REASON, "", [module]).evidence(run()).sections["locks"]
    assert set(section) == {"waits", "wait_ms", "hold_us", "sources"}
    assert list(section["wait_ms"]) == ["mock-0", "mock-1"]


def test_status_says_why_and_what_would_help(collector):
    status = collector.status()
    assert (status.backend, status.reason, status.remedy) == ("mock", REASON, "run it as root")
    assert {module.state for module in status.modules} == {"down"}
    assert {module.reason for module in status.modules} == {REASON}
    assert status.details == {"kernel": "6.1"}


def test_an_option(monkeypatch):
    """Loaded by name, in the status by its state, and in the evidence of the runs that ask for it."""
    forks, order = (Counter(name=name, help="", hooks=(name,)) for name in ("forks", "order"))
    locks = Module(name="locks", question="?", metrics=(forks, order), options=("order", "holders"))
    hooks = (Hook("forks", ()), Hook("order", (), option="locks:order"))
    monkeypatch.setattr(mock, "HOOKS", hooks)
    monkeypatch.setattr(collectors, "CATALOG", (locks,))
    collector = collectors.open_collector(load_settings(backend="mock", probes="locks:order"))
    (status,) = collector.status().modules
    found = []
    for probes in ((), ("locks", "locks:order")):
        collector.start(RunRequest(selection=Selection(probes)))
        found.append(collector.evidence(run()).sections["locks"])

    assert status.options == {"order": "down", "holders": "off"}
    assert status.loaded == ("locks", "locks:order")
    assert found[0].keys() == {"forks", "sources", "unavailable"}
    assert found[1].keys() == {"forks", "order", "sources"}


def test_an_option_that_does_not_exist():
    with pytest.raises(InputError, match=r"there is no option exec:order; .* biolatency, cpu, exec,"):
        collectors.open_collector(load_settings(backend="mock", probes="exec:order"))
