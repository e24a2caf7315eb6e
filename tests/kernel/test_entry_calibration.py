"""The cost of entering a program, from three measurements of a system call, and on this kernel."""

import errno
import os

import pytest

from chainbench_agent.bpf import libbpf
from chainbench_agent.evidence.entry_cost import EntryCost
from chainbench_agent.kernel import entry_calibration
from chainbench_agent.kernel.entry_calibration import _difference, _Measurement, calibrate


def test_the_run_time_of_the_programs_is_subtracted():
    """Two programs of 30 ns each make a call 260 ns longer, two more 200 ns."""
    measurements = _Measurement(100, 0), _Measurement(360, 60), _Measurement(560, 120)

    assert _difference(*measurements) == EntryCost(call_ns=100, other_ns=70)


@pytest.mark.parametrize("measurements", [(100, 100, 400), (100, 300, 200)])
def test_an_impossible_cost_is_not_reported(measurements):
    """An entry does not cost 0 ns or less: the machine was busy."""
    assert "too busy" in _difference(
        *(_Measurement(call, own) for call, own in zip(measurements, (0, 10, 20), strict=True))
    )


def test_without_privileges_there_is_a_reason_instead_of_a_cost(monkeypatch):
    """And no descriptor stays open."""
    opened = []

    def load(*_):
        opened.append(os.open(os.devnull, os.O_RDONLY))
        return opened[-1]

    def refuse(*_):
        raise OSError(errno.EPERM, "not allowed")

    monkeypatch.setattr(libbpf, "enable_stats", load)
    monkeypatch.setattr(libbpf, "load_program", load)
    monkeypatch.setattr(libbpf, "open_raw_tracepoint", refuse)
    monkeypatch.setattr(entry_calibration, "_account", lambda _fd: (0, 0))

    assert calibrate() == "it could not be calibrated: not allowed"
    assert len(opened) == 3
    for fd in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.bpf
def test_an_entry_costs_something_on_this_kernel():
    found = calibrate()
    for _ in range(10):  # a busy machine
        found = found if isinstance(found, EntryCost) else calibrate()

    assert isinstance(found, EntryCost)
    assert 0 < found.other_ns < 100_000
    assert 0 < found.call_ns < 100_000
