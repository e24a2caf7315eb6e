"""The PMU events that this CPU can count, and the reasons why not the others."""

import errno

import pytest

from chainbench_agent.bpf.perf_events import HARDWARE, RAW, SOFTWARE
from chainbench_agent.loading import pmu_events
from chainbench_agent.loading.host_features import FEATURES
from chainbench_agent.probes.memory import COUNTERS, MODULE


@pytest.fixture
def cpu(monkeypatch, tmp_path):
    """`cpu(vendor, family, model)`: what /proc/cpuinfo says."""

    def pretend(vendor, family, model):
        file = tmp_path / "cpuinfo"
        file.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n\nother\n")
        monkeypatch.setattr(pmu_events, "CPUINFO", file)

    return pretend


@pytest.mark.parametrize(
    ("model", "references", "l2"),
    [
        (("GenuineIntel", 6, 0x55), (HARDWARE, 2), (RAW, 0x3F24)),  # Skylake-X
        (("GenuineIntel", 6, 0x97), (HARDWARE, 2), None),  # Alder Lake has two kinds of cores
        (("GenuineIntel", 15, 0x55), (HARDWARE, 2), None),
        (("AuthenticAMD", 25, 17), (3, 2), (RAW, 0x0964)),  # Zen 4
        (("AuthenticAMD", 16, 2), (3, 2), None),
        (("", 0, 0), (3, 2), None),
    ],
)
def test_events_of_a_cpu(cpu, model, references, l2):
    """The last level by what it is called there, L2 only where the model is known."""
    cpu(*model)

    assert pmu_events.event_of("cache_references")[1:] == references
    event = pmu_events.event_of("l2_misses")
    assert (event and event[1:]) == l2


def test_a_cpu_without_a_model(cpu, tmp_path):
    """As arm64's /proc/cpuinfo has none."""
    cpu("", 0, 0)
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 243.75\n")

    assert pmu_events.cpu_model() == ("", 0, 0)
    assert "no event is known" in pmu_events.lacking("l2_misses")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOENT, "virtual PMU"),
        (errno.EOPNOTSUPP, "virtual PMU"),
        (errno.EACCES, "CAP_PERFMON"),
    ],
)
def test_why_an_event_is_lacking(monkeypatch, code, remedy):
    """The event, the kernel's word, and what would change that."""

    def refuse(*_event, **_where):
        raise OSError(code, "as the kernel says")

    monkeypatch.setattr(pmu_events, "open_event", refuse)

    reason = pmu_events.lacking("dtlb_misses")
    assert reason.startswith("perf event dTLB-load-misses: as the kernel says; ")
    assert remedy in reason
    assert pmu_events.lacking("any") == pmu_events.lacking("cache_references") == pmu_events.lacking("cache_hits")
    assert pmu_events.available() == 0


@pytest.mark.bpf
def test_some_are_there(monkeypatch):
    """A bit for each; hits take both of what they are computed from."""
    known = {"cache_references": pmu_events.Event("minor-faults", SOFTWARE, 5)}
    monkeypatch.setattr(pmu_events, "event_of", known.get)

    assert pmu_events.available() == 1 << COUNTERS.index("cache_references")
    assert pmu_events.lacking("any") == pmu_events.lacking("cache_references") == ""
    assert "no event is known" in pmu_events.lacking("cache_hits")


def test_every_need_is_a_fact():
    """A metric that needs a counter names one that is looked for."""
    needs = {metric.needs for metric in MODULE.metrics if metric.needs}

    assert needs <= FEATURES.keys()
    assert pmu_events.source_of("counter:cache_hits") != ()
    assert pmu_events.source_of("cfs_bandwidth") == ()
