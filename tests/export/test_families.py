"""Every figure of the evidence becomes a sample, and nothing else does."""

import pytest

from chainbench_agent.abi.histogram import UPPER_BOUNDS_NS
from chainbench_agent.evidence.report import Report
from chainbench_agent.export.families import BUCKETS_NS, report_samples, result_samples, run_samples
from chainbench_agent.export.series import catalog_families

RUN_LABELS = {
    "scenario": "baseline",
    "impl": "python",
    "variant": "numpy",
    "commit": "abc123",
    "machine": "host",
    "dataset": "d1",
}


@pytest.fixture
def samples(catalog, make_evidence):
    """(sample name, labels of its own, as a string) → value."""

    def read(sections=None):
        evidence = make_evidence(sections)
        found = {}
        for family in run_samples(catalog_families(catalog), evidence):
            for sample in family.samples:
                assert RUN_LABELS.items() <= sample.labels.items()
                own = {name: text for name, text in sample.labels.items() if name not in RUN_LABELS}
                assert own.pop("source") == "ebpf"
                key = (sample.name, ",".join(f"{name}={text}" for name, text in own.items()))
                assert key not in found
                found[key] = sample.value
        return found

    return read


def test_numbers(samples):
    found = samples()
    numbers = {key: value for key, value in found.items() if "microseconds" not in key[0] and "drain" not in key[0]}
    assert numbers == {
        ("chainbench_run_duration_seconds", ""): 1.5,
        ("chainbench_queue_pushes_total", ""): 7,
        ("chainbench_queue_pops_total", ""): 0,
        ("chainbench_queue_held_seconds_total", ""): 0.063274323,
        ("chainbench_queue_busy_seconds_total", "state=full"): 0.0015,
        ("chainbench_queue_busy_seconds_total", "state=empty"): 0.002,
        ("chainbench_queue_depth", ""): 2.5,
        ("chainbench_queue_avg_wait_seconds", ""): 0.0000125,
        ("chainbench_queue_reason_seconds", "reason=io_schedule,syscall=read"): 0.011,
        ("chainbench_queue_reason_seconds", "reason=io_schedule,syscall=write"): 0.004,
        ("chainbench_call_count_total", "call=push"): 3,
        ("chainbench_call_count_total", "call=pop"): 0,
    }


def test_histogram_is_cumulative_and_its_bounds_are_inclusive(samples):
    found = samples()
    bucket = "chainbench_queue_microseconds_bucket"
    assert found[bucket, "le=1.024"] == 1 + 2
    assert found[bucket, "le=2.048"] == found[bucket, "le=1048.576"] == 1 + 2 + 4
    assert found[bucket, "le=1.7179869184e+07"] == 1 + 2 + 4 + 8
    assert found[bucket, "le=+Inf"] == found["chainbench_queue_microseconds_count", ""] == 31
    assert found["chainbench_queue_microseconds_sum", ""] == 1234.567


def test_histogram_in_seconds(samples):
    found = samples()
    bucket = "chainbench_queue_drain_seconds_bucket"
    assert [found[bucket, f"le={bound}"] for bound in ("1.024e-06", "2.048e-06", "17.179869184", "+Inf")] == [
        0,
        3,
        3,
        3,
    ]
    assert found["chainbench_queue_drain_seconds_sum", ""] == 0.0000055


def test_no_slot_is_split_by_a_bucket():
    assert set(BUCKETS_NS) <= set(UPPER_BOUNDS_NS)


def test_absent_is_no_series_and_never_zero(samples):
    """Only the run's own length is left of a section in which nothing could be measured."""
    assert list(samples({"queues": {"sources": {}, "unavailable": {"pushes": "no hook"}}})) == [
        ("chainbench_run_duration_seconds", "")
    ]


def test_a_measured_nothing_is_zero(samples):
    found = samples({"queues": {"histogram": [], "count": 0, "sum_us": 0.0, "sources": {}}})
    assert found["chainbench_queue_microseconds_count", ""] == 0
    assert found["chainbench_queue_microseconds_bucket", "le=+Inf"] == 0


@pytest.mark.parametrize("first", [0, 1])
def test_an_entry_with_one_label_more_is_a_series_of_its_own(samples, first):
    """Whichever comes first: the label is empty where an entry does not have it."""
    waits = [
        {"reason": "read", "syscall": "read", "ms": 4},
        {"reason": "read", "syscall": "read", "file": "pipe", "ms": 3},
    ]
    found = samples({"queues": {"reasons": [waits[first], waits[1 - first]], "sources": {}}})

    name = "chainbench_queue_reason_seconds"
    assert found[name, "reason=read,syscall=read,file="] == 0.004
    assert found[name, "reason=read,syscall=read,file=pipe"] == 0.003


def test_a_module_without_a_section_has_no_series(samples):
    found = samples({"call_counts": {"push": 3}})
    assert {name for name, _ in found} == {"chainbench_run_duration_seconds", "chainbench_call_count_total"}


def test_a_report_has_both_scenarios():
    report = Report(
        impl="python", variant="numpy", commit="abc123", dataset="d1", baseline_ms=1500, optimized_ms=1200, gain_pct=20
    )
    samples = [sample for family in report_samples(report, "host") for sample in family.samples]
    assert [(sample.name, sample.labels["scenario"], sample.value) for sample in samples] == [
        ("chainbench_duration_milliseconds", "baseline", 1500),
        ("chainbench_duration_milliseconds", "optimized", 1200),
        ("chainbench_gain_percent", "", 20),
    ]
    assert all({**sample.labels, "scenario": "baseline"} == RUN_LABELS for sample in samples)


def test_results_have_the_names_that_dashboards_know(make_evidence):
    run = make_evidence().run
    family = result_samples([(run, {"finished": 3, "failed": 2, "interrupted": 1})], "host")
    assert {sample.labels["result"]: sample.value for sample in family.samples} == {
        "success": 3,
        "fail": 2,
        "interrupted": 1,
    }


def test_other_keys_of_a_section_are_no_series(samples):
    """An inline mapping has series for its own entries only, whatever else is in the section."""
    others = {
        "sources": {"by_name": "raw_tracepoint:call"},
        "unavailable": {"x": "no hook"},
        "scope": {"x": "machine"},
        "sampling": {"interval": 10, "zero_means_below": 29, "standard_error": {"push": 5.2}},
        "top_processes": [{"pid": 1, "command": "x", "total": 3}],
        "other_processes": {"total": 0},
    }

    found = samples({"call_counts": {"push": 3} | others})

    assert {key for key in found if "call" in key[0]} == {("chainbench_call_count_total", "call=push")}
