"""Where a zero would be a guess, the reason is a sentence."""

import pytest
from btf_blob import Blob

from chainbench_agent.loading import host_features
from chainbench_agent.probes import CATALOG


def test_every_need_is_a_known_fact():
    """And every fact is needed."""
    assert {metric.needs for module in CATALOG for metric in module.metrics} - {""} == host_features.FEATURES.keys()


@pytest.mark.parametrize(("member", "reason"), [("cfs_bandwidth", ""), ("shares", "without CONFIG_CFS_BANDWIDTH")])
def test_cfs_bandwidth(member, reason):
    """A kernel with it has the member."""
    blob = Blob()
    blob.struct("task_group", 4, (member, blob.int("int", 4), 0))

    found = host_features.FEATURES["cfs_bandwidth"](blob.btf())

    assert found.endswith(reason)
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("drivers", "reason"),
    [
        ([], "no cpufreq driver"),
        (["acpi-cpufreq"], ""),
        (["intel_cpufreq"], ""),
        (["intel_pstate"], "intel_pstate changes frequencies in hardware"),
        (["amd-pstate-epp", "amd-pstate-epp"], "amd-pstate-epp changes frequencies in hardware"),
    ],
)
def test_cpufreq_governor(monkeypatch, tmp_path, drivers, reason):
    """Only a governor in the kernel passes by the tracepoint."""
    for number, driver in enumerate(drivers):
        (tmp_path / f"policy{number}").mkdir()
        (tmp_path / f"policy{number}" / "scaling_driver").write_text(f"{driver}\n")
    monkeypatch.setattr(host_features, "CPUFREQ", tmp_path)

    found = host_features.FEATURES["cpufreq_governor"](Blob().btf())

    assert reason in found
    assert bool(found) == bool(reason)
