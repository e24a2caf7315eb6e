"""/metrics as Prometheus reads it."""

from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from chainbench_agent.evidence.report import Report
from chainbench_agent.export.health import AgentRegistry
from chainbench_agent.export.prometheus import Exporter, preferred_format

PARSERS = {
    "text/plain": text_string_to_metric_families,
    "application/openmetrics-text": openmetrics.text_string_to_metric_families,
}


PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)

GOLDEN = """\
# HELP chainbench_runs_total Finished runs by result.
# TYPE chainbench_runs_total counter
chainbench_runs_total{LABELS,result="success",scenario="baseline",variant="numpy"} 1.0
# HELP chainbench_run_duration_seconds Time from /start to /stop, or until now.
# TYPE chainbench_run_duration_seconds gauge
chainbench_run_duration_seconds{LABELS,scenario="baseline",source="ebpf",variant="numpy"} 1.5
# HELP chainbench_queue_pushes_total Pushes.
# TYPE chainbench_queue_pushes_total counter
chainbench_queue_pushes_total{LABELS,scenario="baseline",source="ebpf",variant="numpy"} 7.0
# HELP chainbench_queue_busy_seconds_total Busy.
# TYPE chainbench_queue_busy_seconds_total counter
chainbench_queue_busy_seconds_total{LABELS,scenario="baseline",source="ebpf",state="full",variant="numpy"} 1.5
""".replace("LABELS", 'commit="abc123",dataset="d1",impl="python",machine="host"')


def small(pushes=7, **busy_ms):
    """Sections with little in them."""
    return {"queues": {"pushes": pushes, "busy_ms": busy_ms or {"full": 1500.0}, "sources": {}}}


def about_runs(body):
    """The lines that are not about the agent (test_health.py)."""
    return [line for line in body.decode().splitlines() if "chainbench_agent_" not in line]


@pytest.fixture
def exporter(catalog):
    return Exporter(catalog, AgentRegistry("0.1.0", "ebpf", {}, dict))


@pytest.fixture
def scrape(exporter):
    """The samples of a view as (name, labels) → value; no series may come twice.  Scrapes are not asked for."""

    def read(view, accept="text/plain"):
        body, _ = exporter.render(view, accept)
        found = {}
        for family in PARSERS[accept](body.decode()):
            for sample in (s for s in family.samples if not s.name.startswith("chainbench_agent_scrape_")):
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in found, f"{key} twice"
                found[key] = sample.value
        return found

    return read


def values(samples, name, **labels):
    return [value for (n, own), value in samples.items() if n == name and labels.items() <= dict(own).items()]


def test_golden(exporter, make_evidence, make_view):
    body, content_type = exporter.render(make_view(make_evidence(small())), "")
    assert about_runs(body) == GOLDEN.splitlines()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"


def test_every_kind_of_metric_byte_by_byte(exporter, make_evidence, make_view):
    """A change of this text changes what dashboards and databases already have."""
    body, _ = exporter.render(make_view(make_evidence()), "")

    assert about_runs(body) == Path(__file__).with_name("exposition.txt").read_text().splitlines()


def test_openmetrics_differs_only_in_its_metadata(exporter, make_evidence, make_view):
    body, content_type = exporter.render(make_view(make_evidence(small())), "application/openmetrics-text")
    lines = about_runs(body)
    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert lines[-1] == "# EOF"
    assert "# TYPE chainbench_queue_pushes counter" in lines
    samples = [line for line in lines if not line.startswith("#")]
    assert samples == [line for line in GOLDEN.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("accept", PARSERS)
def test_both_parsers_read_the_same(scrape, make_evidence, make_view, accept):
    view = make_view(make_evidence(), make_evidence(commit="def456", run_id="2"))
    assert scrape(view, accept) == scrape(view)
    assert values(scrape(view, accept), "chainbench_queue_pushes_total") == [7, 7]


@pytest.mark.parametrize("accept", PARSERS)
def test_buckets_are_cumulative_and_end_in_the_count(scrape, make_evidence, make_view, accept):
    found = scrape(make_view(make_evidence()), accept)
    for name in ("chainbench_queue_microseconds", "chainbench_queue_drain_seconds"):
        buckets = {float(dict(labels)["le"]): value for (n, labels), value in found.items() if n == f"{name}_bucket"}
        ordered = [buckets[bound] for bound in sorted(buckets)]
        assert ordered == sorted(ordered)
        assert [ordered[-1]] == values(found, f"{name}_count")


def test_without_runs_only_the_agent_is_there(scrape, make_view):
    assert values(scrape(make_view()), "chainbench_agent_info", version="0.1.0", backend="ebpf") == [1]
    assert all(name.startswith("chainbench_agent_") for name, _ in scrape(make_view()))


def test_the_running_run_replaces_the_finished_one_of_its_labels(scrape, make_evidence, make_view):
    finished = make_evidence(small())
    running = make_evidence(small(2), run_id="2", ended_by="running")
    assert values(scrape(make_view(finished, current=running)), "chainbench_queue_pushes_total") == [2]


def test_the_running_run_is_read_at_each_scrape(scrape, make_evidence, make_view):
    def pushes(count, ended_by):
        evidence = make_evidence(small(count), ended_by=ended_by)
        view = make_view(current=evidence) if ended_by == "running" else make_view(evidence)
        return values(scrape(view), "chainbench_queue_pushes_total")

    assert [pushes(1, "running"), pushes(2, "running"), pushes(3, "stop")] == [[1], [2], [3]]


def test_finished_runs_are_turned_into_text_once_and_forgotten_with_the_view(exporter, make_evidence, make_view):
    """The view bounds the text that is held in memory."""
    runs = [make_evidence(small(), run_id=str(i), commit=str(i)) for i in range(3)]
    exporter.render(make_view(*runs), "")
    held = dict(exporter._finished)
    exporter.render(make_view(*runs[1:]), "")
    assert set(exporter._finished) == {"1", "2"}
    assert all(exporter._finished[run_id] is held[run_id] for run_id in exporter._finished)


def test_a_failed_run_is_counted_though_it_has_no_evidence(scrape, make_evidence, make_view):
    view = make_view(make_evidence(small()), results={"failed": 2})
    view.remembered()[0].evidence = None
    assert values(scrape(view), "chainbench_runs_total", result="fail") == [2]
    assert values(scrape(view), "chainbench_queue_pushes_total") == []


def test_mock_and_measured_numbers_are_different_series(scrape, make_evidence, make_view):
    mock = make_evidence(small(1), run_id="2", source="mock")
    found = scrape(make_view(make_evidence(small()), current=mock))
    assert values(found, "chainbench_queue_pushes_total", source="ebpf") == [7]
    assert values(found, "chainbench_queue_pushes_total", source="mock") == [1]


def test_the_latest_report_on_a_pair_counts(scrape, make_view):
    pair = {"impl": "python", "variant": "numpy", "commit": "abc123", "dataset": "d1"}
    reports = [
        Report(**pair, baseline_ms=1500, optimized_ms=1200, gain_pct=20),
        Report(**pair, scenario="pair", baseline_ms=1000, optimized_ms=500, gain_pct=50),
        Report(**(pair | {"commit": "def456"}), baseline_ms=1, optimized_ms=2, gain_pct=-100),
    ]
    found = scrape(make_view(reports=reports))
    assert values(found, "chainbench_duration_milliseconds", commit="abc123", scenario="baseline") == [1000]
    assert values(found, "chainbench_duration_milliseconds", commit="abc123", scenario="optimized") == [500]
    assert values(found, "chainbench_gain_percent") == [50, -100]


@pytest.mark.parametrize("accept", PARSERS)
@pytest.mark.parametrize("label", ['say "hi"', "two\nlines", "back\\slash\\n", "naïve 数", "# HELP x", "{a='b'}", " "])
def test_label_values_are_read_as_they_were_sent(scrape, make_evidence, make_view, accept, label):
    found = scrape(make_view(make_evidence(small(**{label: 1.0}), commit=label)), accept)
    assert values(found, "chainbench_queue_busy_seconds_total", commit=label, state=label) == [0.001]
    assert values(found, "chainbench_runs_total", commit=label) == [1]


@pytest.mark.parametrize(
    ("accept", "openmetrics_preferred"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;version=not.a.version", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.5", False),
        ("application/openmetrics-text;q=nonsense", False),
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
    ],
)
def test_format_by_accept(accept, openmetrics_preferred):
    assert preferred_format(accept).content_type.startswith(
        "application/openmetrics-text" if openmetrics_preferred else "text/plain; version=0.0.4"
    )
