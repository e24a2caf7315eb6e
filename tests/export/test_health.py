"""The agent's own metrics."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from chainbench_agent.evidence.model import Cost, Loss, ProgramCost, SelfCheck, Violation
from chainbench_agent.evidence.self_check import INVARIANTS
from chainbench_agent.evidence.totals import Program, Totals
from chainbench_agent.export.health import HEALTH, LOG_DROPPED, LONGEST_REASON, RESPONSES_CUT, AgentRegistry
from chainbench_agent.export.prometheus import Exporter
from chainbench_agent.model.status import ModuleStatus, StoreStatus
from chainbench_agent.store.base import NoStore

SWITCH = Program("sched_switch", "raw_tracepoint:sched_switch")
COUNTS = {LOG_DROPPED: [((), 3)], RESPONSES_CUT: [(("too_slow",), 2), (("client_left",), 0)]}
DETAILS = {"kernel": "6.1.0", "bcc": "0.26.0", "headers": "/var/cache"}


@pytest.fixture
def exporter(catalog):
    return Exporter(catalog, AgentRegistry("0.1.0", "ebpf", DETAILS, lambda: {"worker": os.getpid()}, lambda: COUNTS))


@pytest.fixture
def scrape(exporter):
    """(name without prefix, its labels) → value, of chainbench_agent_*."""

    def read(view):
        body, _ = exporter.render(view, "")
        return {
            (sample.name.removeprefix("chainbench_agent_"), tuple(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
            if sample.name.startswith("chainbench_agent_")
        }

    return read


def with_loss(evidence, lost, runs):
    """The evidence of a run that lost so many events, and whose program ran so often for 1 µs each."""
    programs = [ProgramCost(hook=SWITCH.hook, source=SWITCH.source, runs=runs, ns=1000 * runs)]
    cost = Cost(cpu_percent=1, bpf_ns=1, events=runs, ns_per_event=1, programs=programs, modules={})
    return evidence.model_copy(update={"loss": Loss(total=lost, causes={"keys_full": lost}), "cost": cost})


def test_what_it_is(scrape, make_view):
    found = scrape(make_view())

    assert found["info", ("ebpf", "0.1.0")] == 1
    assert [labels for name, labels in found if name == "build_info"] == [
        ("0.26.0", "6.1.0", ".".join(map(str, sys.version_info[:3])), "0.1.0")
    ]


def test_each_module_says_whether_it_is_up(scrape, make_view):
    """Down with its reason, in one line; what nobody asked for is neither up nor down."""
    found = scrape(make_view())

    assert {labels: value for (name, labels), value in found.items() if name == "module_up"} == {
        ("queue", "", "up"): 1,
        ("calls", "it does not compile:", "down"): 0,
    }


def test_a_module_that_lacks_some_metrics_is_up(scrape, make_view):
    """It says how many; one that is down lacks all, and why it does stands there already."""
    modules = (
        ModuleStatus("queue", "degraded", unavailable={"depth": "no such hook", "size": "no such hook"}),
        ModuleStatus("calls", "down", "why", unavailable={"total": "why"}),
        ModuleStatus("locks", "up"),
    )
    known = make_view().status()
    collector = SimpleNamespace(**vars(known.collector) | {"modules": modules})

    found = scrape(make_view(status=SimpleNamespace(phase="idle", collector=collector, store=known.store)))

    assert {labels[0]: value for (name, labels), value in found.items() if name == "module_up"} == {
        "queue": 1,
        "calls": 0,
        "locks": 1,
    }
    lacking = {labels: value for (name, labels), value in found.items() if name == "module_unavailable_metrics"}
    assert lacking == {("queue",): 2, ("locks",): 0}


def test_why_it_makes_numbers_up(scrape, make_view):
    collector = SimpleNamespace(backend="mock", reason="no BTF" + "!" * 999, modules=(), loss_causes=())

    found = scrape(make_view(status=SimpleNamespace(phase="idle", collector=collector, store=NoStore().status())))

    assert found["backend", ("mock", f"no BTF{'!' * 999}"[:LONGEST_REASON])] == 1
    assert not [name for name, _ in found if name == "lost_events_total"]  # nothing was watched


@pytest.mark.parametrize(("phase", "active"), [("idle", 0), ("starting", 1), ("running", 1), ("stopping", 1)])
def test_whether_a_run_is_on(scrape, make_view, phase, active):
    known = make_view().status()
    status = SimpleNamespace(phase=phase, collector=known.collector, store=known.store)

    assert scrape(make_view(status=status))["run_active", ()] == active


def test_how_large_the_store_is(scrape, make_view):
    found = scrape(make_view())

    assert (found["store_bytes", ()], found["store_runs", ()]) == (1009, 53)


@pytest.mark.parametrize("store", [NoStore().status(), StoreStatus("sqlite", "down", reason="the disk is gone")])
def test_a_store_that_is_not_there_has_no_size(scrape, make_view, store):
    """Absent, not zero; one that is empty has no runs."""
    status = SimpleNamespace(phase="idle", collector=make_view().status().collector, store=store)
    empty = SimpleNamespace(phase="idle", collector=status.collector, store=StoreStatus("postgresql", "up", runs=0))

    assert not [name for name, _ in scrape(make_view(status=status)) if name.startswith("store")]
    assert [(name, n) for (name, _), n in scrape(make_view(status=empty)).items() if name[:5] == "store"] == [
        ("store_runs", 0)
    ]


def test_losses_begin_with_zero(scrape, make_view):
    """So that the first one is an increase."""
    found = scrape(make_view())

    assert [found["lost_events_total", (cause,)] for cause in ("keys_full", "returns_missed")] == [0, 0]


def test_self_checks_that_failed(scrape, make_view, make_evidence):
    """By invariant, in all runs; each has a series from the beginning, so that the first violation is an increase."""
    violation = Violation(invariant="on_cpu", left=2, right=1, tolerance=0, unit="ms", note="")
    failed = make_evidence().model_copy(update={"self_check": SelfCheck(checked=9, violations=[violation] * 2)})

    found = scrape(make_view(totals=Totals().plus(failed).plus(make_evidence()).plus(failed)))

    shown = {labels[0]: value for (name, labels), value in found.items() if name == "self_check_violations_total"}
    assert shown == dict.fromkeys(INVARIANTS, 0) | {"on_cpu": 4}


def test_the_run_that_is_on_counts_and_no_counter_ever_falls(scrape, make_view, make_evidence):
    """Before, in, at the end of (when it cannot be seen for a moment) and after a run of 7 lost events."""
    before = Totals().plus(with_loss(make_evidence(), 3, 11))
    half, whole = with_loss(make_evidence(), 5, 13), with_loss(make_evidence(), 7, 17)
    views = [
        make_view(totals=before),
        make_view(totals=before, current=half),
        make_view(totals=before),  # it stops
        make_view(totals=before.plus(whole)),
    ]

    found = [scrape(view) for view in views]

    assert [f["lost_events_total", ("keys_full",)] for f in found] == [3, 8, 8, 10]
    assert [f["program_runs_total", SWITCH] for f in found] == [11, 24, 24, 28]
    assert [f["program_seconds_total", SWITCH] for f in found] == [11e-6, 24e-6, 24e-6, 28e-6]


def test_scrapes_are_timed(scrape, make_view):
    for _ in range(3):
        scrape(make_view())

    found = scrape(make_view())

    assert found["scrape_duration_seconds_count", ()] == 3
    assert 0 < found["scrape_duration_seconds_sum", ()] < 60


def test_what_the_daemon_counts_of_itself(scrape, make_view):
    found = scrape(make_view())

    assert found["log_records_dropped_total", ()] == 3
    assert found["responses_cut_total", ("too_slow",)] == 2
    assert found["responses_cut_total", ("client_left",)] == 0


def test_each_process_is_measured(catalog, make_view):
    """Memory, CPU time, descriptors of every process that is named; one that is gone has none."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as other:
        other.stdin.write(b".")
        other.stdout.read(1)  # it is cat by now, and no longer what becomes it
        registry = AgentRegistry("0.1.0", "ebpf", {}, lambda: {"worker": os.getpid(), "other": other.pid})
        exporter = Exporter(catalog, registry)
        both = processes(exporter, make_view())
        other.kill()
    one = processes(exporter, make_view())

    assert set(both) == {"worker", "other"}
    assert both["worker"]["resident_memory_bytes"] > both["other"]["resident_memory_bytes"] > 0
    assert both["other"]["open_fds"] >= 3
    assert {"cpu_seconds_total", "start_time_seconds", "virtual_memory_bytes", "max_fds"} <= set(both["worker"])
    assert set(one) == {"worker"}


def processes(exporter, view):
    body, _ = exporter.render(view, "application/openmetrics-text")
    found = {}
    for family in openmetrics(body.decode()):
        for sample in family.samples:
            if "_process_" in sample.name:
                name = sample.name.partition("_process_")[2]
                found.setdefault(sample.labels["process"], {})[name] = sample.value
    return found


def test_all_that_is_shown_is_declared(scrape, make_view, make_evidence):
    """The table of docs/metrics.md is made from HEALTH."""
    view = make_view(totals=Totals().plus(with_loss(make_evidence(), 1, 1)))
    shown = {name for name, _ in scrape(view)}

    declared = {family.name.removeprefix("chainbench_agent_") for family, _ in HEALTH}
    of_families = {"scrape_duration_seconds_count", "scrape_duration_seconds_sum"}
    assert {name for name in shown if not name.startswith("process_")} - of_families == declared - {
        "scrape_duration_seconds",
        "process_*",
    }


def test_totals_forget_nothing_that_was_shown():
    """A run that fails in its last moment takes its numbers with it; the counters stay."""
    shown = Totals({"keys_full": 5}, {SWITCH: 7}, {SWITCH: 9})

    assert Totals().at_least(shown) == shown
    assert replace(shown, lost={"keys_full": 6}).at_least(shown).lost == {"keys_full": 6}
