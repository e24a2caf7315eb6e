"""The checks of what this machine offers."""

import ast
import errno
import os
from pathlib import Path

import pytest

from chainbench_agent.bpf import perf_events
from chainbench_agent.kernel import preflight
from chainbench_agent.kernel.preflight import REMEDIES, Check, capabilities


def test_every_check_that_can_fail_has_its_remedy():
    """Every remedy has its check, too."""
    calls = [
        node
        for node in ast.walk(ast.parse(Path(preflight.__file__).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Check"
    ]

    can_fail = {call.args[0].value for call in calls if "arg='ok', value=Constant(value=True)" not in ast.dump(call)}

    assert can_fail == REMEDIES.keys()
    with pytest.raises(KeyError):
        Check("weather", ok=False, found="rain")


@pytest.mark.parametrize(
    ("mask", "names", "enough"),
    [
        (0, set(), False),
        (1 << 39, {"CAP_BPF"}, False),
        (1 << 39 | 1 << 38, {"CAP_BPF", "CAP_PERFMON"}, True),
        (1 << 21 | 1 << 5, {"CAP_SYS_ADMIN"}, True),
    ],
)
def test_enough_capabilities_are_all_of_root_or_two_of_bpf(monkeypatch, mask, names, enough):
    monkeypatch.setattr(preflight.procfs, "status", lambda _directory: {"CapEff": f"{mask:016x}"})

    assert capabilities() == names
    assert preflight._privileges().ok is enough


@pytest.mark.parametrize(
    ("code", "found"), [(errno.ENOENT, "this CPU offers no PMU counters"), (errno.EACCES, "Permission denied")]
)
def test_a_counter_that_cannot_be_opened_fails_the_check(monkeypatch, code, found):
    def refuse(*_, **__):
        raise OSError(code, "refused")

    monkeypatch.setattr(perf_events, "open_event", refuse)

    assert preflight._pmu() == Check("perf events", ok=False, found=found)


def test_an_architecture_without_perf_events_is_not_tried(monkeypatch):
    monkeypatch.setattr(perf_events, "_SYSCALL", {})
    check = preflight._pmu()

    assert check.ok
    assert "not tried" in check.found


def test_the_counter_of_the_check_is_closed(monkeypatch):
    opened = []

    def open_event(*_, **__):
        opened.append(os.open(os.devnull, os.O_RDONLY))
        return opened[-1]

    monkeypatch.setattr(perf_events, "open_event", open_event)

    assert preflight._pmu().ok
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])
