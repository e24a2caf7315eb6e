"""The choice between the backends, where all that is needed seems to be there and loading fails all the same."""

import errno

import pytest

from chainbench_agent import collector as collectors
from chainbench_agent.collector.mock import MockCollector
from chainbench_agent.errors import LoaderError, SetupError
from chainbench_agent.settings import load_settings

FAILURES = (
    LoaderError("the kernel refuses a map: Cannot allocate memory"),
    SetupError("no BPF program loads here: R1 invalid"),
    OSError(errno.EPERM, "BPF_PROG_RUN: Operation not permitted"),
)


@pytest.fixture(params=FAILURES, ids=lambda error: type(error).__name__)
def failure(request, monkeypatch):
    """The error that loading raises."""

    def fail(*_, events):
        del events
        raise request.param

    monkeypatch.setattr(collectors, "needed_checks", list)
    monkeypatch.setattr(collectors, "EbpfCollector", fail)
    return request.param


def test_auto_serves_mock_data(failure, caplog):
    """And says everywhere why: in /status, in the evidence, in the log."""
    collector = collectors.open_collector(load_settings(backend="auto"))
    status = collector.status()

    assert isinstance(collector, MockCollector)
    assert (status.backend, status.reason) == ("mock", str(failure))
    assert status.remedy == "see what `chainbench-agent doctor` says"
    assert f"serving mock data, because eBPF cannot run here: {failure}" in caplog.text


def test_ebpf_or_nothing(failure):
    """An agent that must measure serves no mock data."""
    with pytest.raises(SetupError) as raised:
        collectors.open_collector(load_settings(backend="ebpf"))

    assert str(raised.value) == f"eBPF cannot run here: {failure}; see what `chainbench-agent doctor` says"
