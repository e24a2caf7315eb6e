import json

import pytest


def latencies(*bounds_us):
    """A distribution with an observation at each of these upper bounds."""
    slots = [{"bucket_us": bound, "count": bounds_us.count(bound)} for bound in sorted(set(bounds_us))]
    extremes = {"min_us": min(bounds_us), "max_us": max(bounds_us)}
    return {"histogram": slots, "count": len(bounds_us), "sum_us": sum(bounds_us), **extremes}


SECTIONS = {
    "runqlat": latencies(0.009, 0.009, 0.017),
    "biolatency": latencies(131.072),
    "offcpu": {"total_ms": 8.5, "top_reasons": [{"reason": "x", "syscall": "fsync", "ms": 8.0}]},
    "exec": {"exec_count": 3, "top_commands": [{"command": "true", "count": 3}]},
    "syscall_counts": {"fsync": 7, "close": 1, "total": 8},
}


@pytest.fixture
def document(rendered):
    return json.loads(rendered("chainbench", sections=SECTIONS))


def test_all_five_sections_are_there(document):
    """With the keys that the readers of report.json know."""
    assert document["available"] is True
    assert (
        set(document["runqlat"])
        == set(document["biolatency"])
        == {
            "baseline_hist",
            "optimized_hist",
            "p95_baseline_us",
            "p95_optimized_us",
        }
    )
    assert document["offcpu"] == {
        "baseline_total_ms": 8.5,
        "optimized_total_ms": 8.5,
        "baseline_top_reasons": [{"reason": "x", "ms": 8.0}],
        "optimized_top_reasons": [{"reason": "x", "ms": 8.0}],
    }
    assert document["exec"]["baseline_exec_count"] == 3
    assert document["exec"]["optimized_top_commands"] == [{"command": "true", "count": 3}]
    assert document["syscall_counts"]["baseline"] == {"futex": 0, "fsync": 7, "openat": 0, "read": 0, "write": 0}


def test_histograms_are_joined_by_index(made):
    """Both sides have the same slots, powers of two without a gap, and no observation is lost."""
    from chainbench_agent.compare.formats.chainbench import _histograms

    one, other = latencies(0.009, 0.009, 0.016), latencies(*[0.017] * 4, *[0.128] * 8)
    pair = tuple(made.run(i, {"on_cpu": 1.0}, sections={"runqlat": s}).evidence for i, s in enumerate((one, other)))
    found = _histograms("runqlat", pair)

    assert [slot["bucket_us"] for slot in found["baseline_hist"]] == [0.016, 0.032, 0.064, 0.128]
    assert [slot["bucket_us"] for slot in found["optimized_hist"]] == [0.016, 0.032, 0.064, 0.128]
    assert [slot["count"] for slot in found["baseline_hist"]] == [3, 0, 0, 0]
    assert [slot["count"] for slot in found["optimized_hist"]] == [0, 4, 0, 8]


def test_counts_are_of_two_measured_runs_that_are_named(compared, document):
    comparison = compared(sections=SECTIONS).comparison

    assert document["runs"] == {
        "baseline": comparison.baseline.median_run,
        "optimized": comparison.optimized.median_run,
    }


def test_the_gain_is_positive_for_faster(document):
    """The opposite sign of the change, and both are there."""
    assert document["gain_pct"] == -document["change_pct"] == pytest.approx(64, abs=1)
    assert document["gain_low_pct"] < document["gain_pct"] < document["gain_high_pct"]


def test_a_section_that_is_missing_on_one_side_is_left_out(rendered):
    document = json.loads(rendered("chainbench", sections={"exec": SECTIONS["exec"]}))

    assert set(document) & {"runqlat", "biolatency", "offcpu", "syscall_counts"} == set()
    assert "exec" in document
