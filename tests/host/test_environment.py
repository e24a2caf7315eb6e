"""The environment of a run, compared with what the machine reports."""

import os
import platform
import subprocess

import pytest

from chainbench_agent.host import environment as module
from chainbench_agent.host.environment import environment


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with a /proc/cpuinfo and governors that the test writes."""
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


def test_the_values_are_those_of_this_machine():
    """As uname reports them.  Each value is present, or in `unavailable` with a reason."""
    found = environment({"bcc": "0.26.0"})

    kernel = subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
    assert (found["kernel"], found["architecture"], found["cpus"]) == (kernel, platform.machine(), os.cpu_count())
    assert found["bcc"] == "0.26.0"
    assert {"cpu_model", "governor"} <= found.keys() | found.get("unavailable", {}).keys()


def test_a_machine_that_has_all_values_has_no_reasons(machine):
    machine(
        "processor\t: 0\nmodel name\t: A CPU @ 3 GHz\nprocessor\t: 1\nmodel name\t: A CPU @ 3 GHz\n", ["performance"]
    )

    found = environment({"bcc": "0.26.0"})

    assert (found["cpu_model"], found["governor"]) == ("A CPU @ 3 GHz", "performance")
    assert "unavailable" not in found


def test_governors_that_differ_are_listed_once(machine):
    machine(governors=["schedutil", "performance", "schedutil"])

    assert environment({})["governor"] == "performance,schedutil"


def test_a_value_that_is_not_known_has_a_reason(machine):
    """arm64 has no model name, a virtual machine no governor, and mock data need no BCC."""
    machine("processor\t: 0\nBogoMIPS\t: 50.00\n")

    found = environment({})

    assert found["unavailable"].keys() == {"cpu_model", "governor", "bcc"}
    assert not found["unavailable"].keys() & found.keys()
