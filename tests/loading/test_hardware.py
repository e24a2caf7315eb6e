"""What this CPU can count, and why not the rest."""

import errno

import pytest

from chainbench_agent.bpf.perf_events import HARDWARE, RAW, SOFTWARE
from chainbench_agent.loading import hardware
from chainbench_agent.loading.facts import FACTS
from chainbench_agent.probes.memory import COUNTERS, MODULE


@pytest.fixture
def cpu(monkeypatch, tmp_path):
    """`cpu(vendor, family, model)`: what /proc/cpuinfo says."""

    def pretend(vendor, family, model):
        file = tmp_path / "cpuinfo"
        file.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n\nother\n")
        monkeypatch.setattr(hardware, "CPUINFO", file)

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

    assert hardware.event_of("cache_references")[1:] == references
    event = hardware.event_of("l2_misses")
    assert (event and event[1:]) == l2


def test_a_cpu_without_a_model(cpu, tmp_path):
    """As arm64's /proc/cpuinfo has none."""
    cpu("", 0, 0)
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 243.75\n")

    assert hardware.cpu_model() == ("", 0, 0)
    assert "no event is known" in hardware.lacking("l2_misses")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOENT, "virtual PMU"),
        (errno.EOPNOTSUPP, "virtual PMU"),
        (errno.EACCES, "CAP_PERFMON"),
    ],
)
def test_why_there_is_none(monkeypatch, code, remedy):
    """The event, the kernel's word, and what would change that."""

    def refuse(*_event, **_where):
        raise OSError(code, "as the kernel says")

    monkeypatch.setattr(hardware, "open_event", refuse)

    reason = hardware.lacking("dtlb_misses")
    assert reason.startswith("perf event dTLB-load-misses: as the kernel says; ")
    assert remedy in reason
    assert hardware.lacking("any") == hardware.lacking("cache_references") == hardware.lacking("cache_hits")
    assert hardware.available() == 0


def test_some_are_there(monkeypatch):
    """A bit for each; hits take both of what they are computed from."""
    known = {"cache_references": hardware.Event("minor-faults", SOFTWARE, 5)}
    monkeypatch.setattr(hardware, "event_of", known.get)

    assert hardware.available() == 1 << COUNTERS.index("cache_references")
    assert hardware.lacking("any") == hardware.lacking("cache_references") == ""
    assert "no event is known" in hardware.lacking("cache_hits")


def test_every_need_is_a_fact():
    """A metric that needs a counter names one that is looked for."""
    needs = {metric.needs for metric in MODULE.metrics if metric.needs}

    assert needs <= FACTS.keys()
    assert hardware.source_of("counter:cache_hits") != ()
    assert hardware.source_of("cfs_bandwidth") == ()
