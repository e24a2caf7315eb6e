"""What a run was measured in, compared with what the machine itself says."""

import os
import platform
import subprocess

import pytest

from chainbench_agent.host import environment as module
from chainbench_agent.host.environment import environment


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose /proc/cpuinfo and governors a test writes."""
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(module, "GOVERNORS", tmp_path / "cpufreq")

    def write(cpuinfo=None, governors=()):
        if cpuinfo is not None:
            (tmp_path / "cpuinfo").write_text(cpuinfo)
        for number, governor in enumerate(governors):
            policy = tmp_path / "cpufreq" / f"policy{number}"
            policy.mkdir(parents=True)
            (policy / "scaling_governor").write_text(f"{governor}\n")

    return write


def test_this_machine():
    """As uname and nproc know it; each thing is there, or in `unavailable` with a reason."""
    found = environment({"bcc": "0.26.0"})

    kernel = subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
    assert (found["kernel"], found["architecture"], found["cpus"]) == (kernel, platform.machine(), os.cpu_count())
    assert found["bcc"] == "0.26.0"
    assert {"cpu_model", "governor"} <= found.keys() | found.get("unavailable", {}).keys()


def test_a_machine_that_says_everything(machine):
    machine(
        "processor\t: 0\nmodel name\t: A CPU @ 3 GHz\nprocessor\t: 1\nmodel name\t: A CPU @ 3 GHz\n", ["performance"]
    )

    found = environment({"bcc": "0.26.0"})

    assert (found["cpu_model"], found["governor"]) == ("A CPU @ 3 GHz", "performance")
    assert "unavailable" not in found


def test_governors_that_differ(machine):
    machine(governors=["schedutil", "performance", "schedutil"])

    assert environment({})["governor"] == "performance,schedutil"


def test_what_cannot_be_told_has_a_reason(machine):
    """arm64 names no model, a virtual machine has no governor, mock data needs no BCC."""
    machine("processor\t: 0\nBogoMIPS\t: 50.00\n")

    found = environment({})

    assert found["unavailable"].keys() == {"cpu_model", "governor", "bcc"}
    assert not found["unavailable"].keys() & found.keys()
