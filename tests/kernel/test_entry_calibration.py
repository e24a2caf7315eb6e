"""What entering a program costs: from three looks at a system call, and on this very kernel."""

import errno
import os

import pytest

from chainbench_agent.bpf import libbpf
from chainbench_agent.evidence.entry_cost import EntryCost
from chainbench_agent.kernel import entry_calibration
from chainbench_agent.kernel.entry_calibration import _difference, _Look, calibrate


def test_what_the_programs_account_for_is_taken_off():
    """Two programs of 30 ns each more, and a call takes 260 ns longer, then 200."""
    looks = _Look(100, 0), _Look(360, 60), _Look(560, 120)

    assert _difference(*looks) == EntryCost(call_ns=100, other_ns=70)


@pytest.mark.parametrize("looks", [(100, 100, 400), (100, 300, 200)])
def test_what_cannot_be_is_not_told(looks):
    """An entry that costs nothing, or less: the machine was busy."""
    assert "too busy" in _difference(*(_Look(call, own) for call, own in zip(looks, (0, 10, 20), strict=True)))


def test_no_privileges(monkeypatch):
    """The reason instead of a number; nothing stays open."""
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
def test_this_kernel():
    """Entering costs something; a system call's programs take the kernel's slow path to be reached."""
    found = calibrate()
    for _ in range(10):  # a busy machine
        found = found if isinstance(found, EntryCost) else calibrate()

    assert isinstance(found, EntryCost)
    assert 0 < found.other_ns < 100_000
    assert 0 < found.call_ns < 100_000
