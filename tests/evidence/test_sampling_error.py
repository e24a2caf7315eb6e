"""The standard errors of sampled figures, against what sampling really does."""

from math import sqrt
from random import Random
from statistics import fmean, pstdev

import pytest

from chainbench_agent.catalog import Counter, Derived, Distribution, HostNames, Module, Names, Table
from chainbench_agent.evidence.sampling_error import is_sampled, is_sum, sampling
from chainbench_agent.probes import CATALOG

NAMES = Names(tables={"calls": {0: "read", 1: "write"}}, stacks={}, throttled_before={}, throttled_after={})
MODULE = Module(
    name="allocs",
    question="?",
    metrics=(
        Counter(name="exact", help=""),
        Counter(name="allocs", help="", sampled=True),
        Counter(name="bytes", help="", sampled=True, squares="squared_bytes"),
        Counter(name="wait_ns", help="", sampled=True, squares="squared_ns"),
        Counter(name="lost_bytes", help="", sampled=True),
        Counter(name="squared_bytes", help="", sampled=True, reported=False),
        Counter(name="squared_ns", help="", sampled=True, reported=False),
        Table(name="by_kind", help="", sampled=True, entries=3, names=HostNames("calls"), label="kind"),
        Derived(name="by_name", help="", of=("by_kind",), inline=True),
        Derived(name="mean", help="", of=("bytes", "allocs")),
    ),
    derive=lambda counts, _names: {"by_name": {"all": sum(counts["by_kind"]), "none": 0}, "mean": 7},
)
COUNTS = {
    "exact": 5,
    "allocs": 400,
    "bytes": 1,
    "wait_ns": 1,
    "lost_bytes": 900,
    "squared_bytes": 2500,
    "squared_ns": 10**14,
    "by_kind": (100, 0, 900),
}


def test_errors_by_name():
    """√(9·400) of a count, √(9·Σx²) of a sum; none where nothing is sampled, or nothing is known of the squares."""
    found = sampling(MODULE, COUNTS, NAMES, {}, 10)["sampling"]

    assert found == {
        "interval": 10,
        "zero_means_below": 29,
        "standard_error": {
            "allocs": 60.0,
            "bytes": 150.0,
            "wait_ms": 30.0,
            "by_kind": {"read": 30.0, "2": 90.0},
            "all": round(sqrt(9 * 1000), 1),
        },
    }


def test_what_is_unavailable_has_no_error():
    found = sampling(MODULE, COUNTS, NAMES, {"allocs": "no hook", "by_name": "no hook"}, 10)["sampling"]

    assert found["standard_error"].keys() == {"bytes", "wait_ms", "by_kind"}


@pytest.mark.parametrize("interval", [1, 0])
def test_every_event_was_counted(interval):
    assert sampling(MODULE, COUNTS, NAMES, {}, interval) == {}


def test_a_module_that_samples_nothing():
    module = Module(name="m", question="?", metrics=(Counter(name="exact", help=""),))

    assert sampling(module, {"exact": 5}, NAMES, {}, 10) == {}


def recorded(sizes, interval, random):
    """(count, sum, sum of squares), as the kernel side keeps them."""
    weights = [(interval, size) for size in sizes if random.randrange(interval) == 0]
    return tuple(sum(weight * size**power for weight, size in weights) for power in (0, 1, 2))


@pytest.mark.parametrize("interval", [2, 10, 100])
def test_the_reported_error_is_the_spread_of_the_estimates(interval):
    """1,000 samplings of 5,000 events: the estimates spread by the reported error, and are not biased.

    The spread of 1,000 normal values is known to 2.2 %, and the seed is fixed; 10 % is four and a half of that.
    """
    random = Random(20)  # noqa: S311 - no secret; it has to be repeatable
    sizes = [random.choice((8, 64, 4096)) for _ in range(5000)]
    counts, sums, squares = zip(*(recorded(sizes, interval, random) for _ in range(1000)), strict=True)

    for estimates, truth, basis in ((counts, 5000, counts), (sums, sum(sizes), squares)):
        error = sqrt(interval - 1) * sqrt(fmean(basis))
        assert pstdev(estimates) == pytest.approx(error, rel=0.1)
        assert fmean(estimates) == pytest.approx(truth, abs=5 * error / sqrt(1000))


@pytest.mark.parametrize("interval", [2, 3, 10, 1000, 10_000])
def test_what_a_zero_means(interval):
    """That many events leave no trace in at most 5 % of the runs; one fewer do so in more."""
    below = sampling(MODULE, COUNTS, NAMES, {}, interval)["sampling"]["zero_means_below"]

    assert (1 - 1 / interval) ** below <= 0.05 < (1 - 1 / interval) ** (below - 1)


@pytest.mark.parametrize("module", CATALOG, ids=lambda module: module.name)
def test_the_catalogue_has_what_errors_need(module):
    """A sampled sum names the counter of its squares, which is sampled raw material of the same module.

    The sum of a distribution has no error of its own, only its count has one.
    """
    raw = {m.name for m in module.metrics if isinstance(m, Counter) and m.sampled and not m.reported}

    for metric in module.reported:
        if is_sampled(module, metric) and is_sum(metric) and not isinstance(metric, Distribution):
            assert isinstance(metric, Counter), metric.name
            assert metric.squares in raw, metric.name
    assert {m.squares for m in module.metrics if isinstance(m, Counter) and m.squares} <= raw


def test_system_calls_by_name():
    """The catalogue's own: each name that was seen has its error, the total too."""
    module = next(m for m in CATALOG if m.name == "syscalls")
    calls = (400, 0, 900) + (0,) * 509
    counts = {"total": 1300, "calls": calls, "calls_32bit": (0,) * 512, "unknown_calls": 0, "failures": {}}

    found = sampling(module, counts, NAMES, {}, 10)["sampling"]["standard_error"]

    assert found == {"total": round(sqrt(9 * 1300), 1), "read": 60.0, "2": 90.0}
