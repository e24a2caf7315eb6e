"""A histogram becomes JSON and is the same histogram again."""

from random import Random

import pytest

from chainbench_agent.evidence.distribution import from_json, section_from_json, section_to_json, summary, to_json


def test_the_json(counted):
    """Buckets by their inclusive upper bound, empty ones left out; exact sum, count and extremes."""
    found = to_json(counted(1_000, 1_000, 64_000))

    assert found["histogram"] == [{"bucket_us": 1.024, "count": 2}, {"bucket_us": 65.536, "count": 1}]
    assert (found["count"], found["sum_us"], found["mean_us"]) == (3, 66, 22)
    assert (found["min_us"], found["max_us"]) == (1, 64)
    assert list(found) == [
        *("histogram", "count", "sum_us", "min_us", "max_us", "mean_us", "p50_us", "p95_us", "p99_us")
    ]


def test_nothing_observed_has_no_quantiles(counted):
    """A latency of zero would be a claim."""
    assert to_json(counted()) == {"histogram": [], "count": 0, "sum_us": 0}


def test_the_summary_is_the_json_without_its_slots(counted):
    counts = counted(5, 7_000)

    assert {"histogram": to_json(counts)["histogram"], **summary(counts)} == to_json(counts)


@pytest.mark.parametrize("seed", range(10))
def test_json_has_all_of_a_histogram(counted, seed):
    """A histogram survives a round trip through JSON to the nanosecond, values beyond the last slot included."""
    random = Random(seed)  # noqa: S311 - no secret; it has to be repeatable
    counts = counted(*(int(random.lognormvariate(3 * seed, 2)) for _ in range(seed * 31)), *[2**44 + 1] * (seed % 2))

    assert from_json(to_json(counts)) == counts


def test_a_section(counted):
    """The distribution that is the section spreads its keys there, at its place; others have a key of their own."""
    section = {"waits": 3, "latency_us": counted(5), "hold_us": counted(7, 8), "by_kind_ms": {"a": 1.5}, "sources": {}}

    found = section_to_json(section)

    assert list(found) == ["waits", *to_json(counted(5)), "hold_us", "by_kind_ms", "sources"]
    assert found["hold_us"] == to_json(counted(7, 8))
    assert list(section_from_json(found).items()) == list(section.items())


def test_a_section_without_histograms_stays_as_it_is():
    """A metric that is called `count` is no part of a histogram there."""
    section = {"count": 3, "by_kind_ms": {"count": 1.5}, "sources": {}}

    assert section_to_json(section) == section_from_json(section) == section
