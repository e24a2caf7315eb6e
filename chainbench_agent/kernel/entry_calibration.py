"""What entering a program costs its caller beyond the program's own account, measured once, when the agent starts.

The kernel's account of a program begins after it has been entered.  Before that the workload has paid: a watched system
call takes the kernel's slow path, a watched tracepoint is no jump over any more, and the account itself reads the clock
twice.  Here a thread of our own makes system calls with nothing attached, with an empty program at their beginning and
end, and with two: the first difference is what a system call's programs cost to enter, the second any other one's.
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

_NOTHING = bytes.fromhex("b700000000000000 9500000000000000")  # r0 = 0; exit
_RAW_TRACEPOINT = (17, 0, 0)  # BPF_PROG_TYPE_RAW_TRACEPOINT
_PLACES = ("sys_enter", "sys_exit")
_ROUNDS = 16
_CALLS = 500


class _Look(NamedTuple):
    call_ns: float
    own_ns: float
    """Of all programs that one call enters, by their own account."""


def calibrate() -> EntryCost | str:
    """The cost of one entry, or why it is not known.  Takes 10 ms, and attaches nothing beyond that time."""
    with ExitStack() as held:

        def hold(fd: int) -> int:
            held.callback(os.close, fd)
            return fd

        try:
            hold(libbpf.enable_stats())
            programs = [hold(libbpf.load_program("cb_nothing", _NOTHING, _RAW_TRACEPOINT)) for _ in _PLACES]
            looks = [_look([])]
            for count, program in enumerate(programs, 1):
                for place in _PLACES:
                    hold(libbpf.open_raw_tracepoint(place, program))
                looks.append(_look(programs[:count]))
        except OSError as error:
            return f"it could not be calibrated: {error.strerror or error}"
    return _difference(*looks)


def _difference(none: _Look, one: _Look, two: _Look) -> EntryCost | str:
    """Per entry; a call enters two programs, one when it begins and one when it ends."""
    call = (one.call_ns - none.call_ns - one.own_ns) / len(_PLACES)
    other = (two.call_ns - one.call_ns - (two.own_ns - one.own_ns)) / len(_PLACES)
    if call <= 0 or other <= 0:
        return "it could not be calibrated: the machine was too busy when the agent started"
    return EntryCost(round(call, 1), round(other, 1))


def _look(programs: list[int], call: Callable[[], object] = os.getppid) -> _Look:
    """The fastest round: a slower one was disturbed."""
    before = [_account(fd) for fd in programs]
    rounds = []
    for _ in range(_ROUNDS):
        began = time.thread_time_ns()
        for _ in repeat(None, _CALLS):
            call()
        rounds.append(time.thread_time_ns() - began)
    grown = [(now[0] - then[0], now[1] - then[1]) for now, then in zip(map(_account, programs), before, strict=True)]
    own_ns = sum(len(_PLACES) * ns / runs for ns, runs in grown if runs)
    return _Look(min(rounds) / _CALLS, own_ns)


def _account(fd: int) -> tuple[int, int]:
    found = fdinfo(fd)
    return int(found.get("run_time_ns", 0)), int(found.get("run_cnt", 0))
