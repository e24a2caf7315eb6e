"""Measures, when the agent starts, what entering a program costs its caller beyond the program's own run time.

The kernel's account of a program's run time begins after the program was entered.  The workload also pays for the time
before: a watched system call takes the kernel's slow path, a watched tracepoint is no longer jumped over, and the
account itself reads the clock twice.  Here a thread makes system calls with no program attached, with one empty program
at their beginning and end, and with two.  The first difference is the cost to enter the programs of a system call, the
second that of any other program.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import repeat
from typing import NamedTuple

from chainbench_agent.bpf import libbpf
from chainbench_agent.bpf.footprint import fdinfo
from chainbench_agent.evidence.entry_cost import EntryCost

_RAW_TRACEPOINT = (17, 0, 0)  # BPF_PROG_TYPE_RAW_TRACEPOINT
_TRACEPOINTS = ("sys_enter", "sys_exit")
_ROUNDS = 16
_CALLS = 500


class _Measurement(NamedTuple):
    call_ns: float
    own_ns: float
    """The run time of all programs that a call enters, by the kernel's account."""


def calibrate() -> EntryCost | str:
    """The cost of one entry, or the reason why it is not known.  Takes 10 ms; its programs are detached afterwards."""
    with ExitStack() as opened:

        def close_later(fd: int) -> int:
            opened.callback(os.close, fd)
            return fd

        try:
            close_later(libbpf.enable_stats())
            load = ("cb_nothing", libbpf.RETURN_0, _RAW_TRACEPOINT)
            programs = [close_later(libbpf.load_program(*load)) for _ in range(2)]
            measurements = [_measure([])]
            for count, program in enumerate(programs, 1):
                for tracepoint in _TRACEPOINTS:
                    close_later(libbpf.open_raw_tracepoint(tracepoint, program))
                measurements.append(_measure(programs[:count]))
        except OSError as error:
            return f"it could not be calibrated: {error.strerror or error}"
    return _difference(*measurements)


def _difference(none: _Measurement, one: _Measurement, two: _Measurement) -> EntryCost | str:
    """The cost per entry: a call enters two programs, one at its beginning and one at its end."""
    call = (one.call_ns - none.call_ns - one.own_ns) / len(_TRACEPOINTS)
    other = (two.call_ns - one.call_ns - (two.own_ns - one.own_ns)) / len(_TRACEPOINTS)
    if call <= 0 or other <= 0:
        return "it could not be calibrated: the machine was too busy when the agent started"
    return EntryCost(round(call, 1), round(other, 1))


def _measure(programs: list[int], call: Callable[[], object] = os.getppid) -> _Measurement:
    """The time of a call in the fastest round: slower rounds were disturbed."""
    before = [_account(fd) for fd in programs]
    rounds = []
    for _ in range(_ROUNDS):
        began = time.thread_time_ns()
        for _ in repeat(None, _CALLS):
            call()
        rounds.append(time.thread_time_ns() - began)
    grown = [(now[0] - then[0], now[1] - then[1]) for now, then in zip(map(_account, programs), before, strict=True)]
    own_ns = sum(len(_TRACEPOINTS) * ns / runs for ns, runs in grown if runs)
    return _Measurement(min(rounds) / _CALLS, own_ns)


def _account(fd: int) -> tuple[int, int]:
    """(run time in ns, number of runs) of a program."""
    found = fdinfo(fd)
    return int(found.get("run_time_ns", 0)), int(found.get("run_cnt", 0))
