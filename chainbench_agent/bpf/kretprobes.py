"""Kretprobes that follow many calls at once.

A kretprobe has room for so many calls that have not returned.  Through perf_event_open it is the kernel's own choice,
on Debian's 5.10 as many as there are CPUs; only tracefs takes a number.  So the probe is made there, under a name of
this process's, and attached to by perf.  Closing the descriptor leaves the name, which is then removed; those that a
process left behind are removed when the next one starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from chainbench_agent.bpf import perf_events

TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
PROC = Path("/proc")
CALLS_AT_ONCE = 1024
"""Some 100 bytes each; the kernel takes 4,096 at most."""

_PREFIX = "chainbench_"
_numbers = count()
_events: dict[int, str] = {}
"""Descriptor → the name of its probe, GROUP/EVENT."""


def open_kretprobe(function: str, program: int) -> int:
    """Run `program` at each return of a kernel function, until close(); raises OSError.

    Where tracefs cannot be written it is the kernel that says how many calls are followed.
    """
    names = _names()
    if names is None:
        return perf_events.open_kprobe(function, program, at_return=True)
    event = f"{_PREFIX}{os.getpid()}/{function}_{next(_numbers)}"
    _write(names, f"r{CALLS_AT_ONCE}:{event} {function}")
    try:
        number = int((names.parent / "events" / event / "id").read_text())
        fd = perf_events.open_tracepoint(number, program)
    except OSError:
        _write(names, f"-:{event}")
        raise
    _events[fd] = event
    return fd


def close(fd: int) -> None:
    """Close what open_kretprobe(), or anything else, has opened."""
    os.close(fd)
    event = _events.pop(fd, "")
    if event and (names := _names()):
        _write(names, f"-:{event}")


def remove_leftovers() -> None:
    """Remove the probes of agents that are no more; what a living one has attached to cannot be removed."""
    names = _names()
    if names is None:
        return
    for pid, event in _left(names):
        if pid == os.getpid() or not (PROC / str(pid)).exists():
            with suppress(OSError):
                _write(names, f"-:{event}")


def _left(names: Path) -> Iterator[tuple[int, str]]:
    """Process → GROUP/EVENT, of all agents' probes but those that this process knows."""
    for line in names.read_bytes().split(b"\n"):
        event = line.partition(b" ")[0].partition(b":")[2].decode(errors="replace")
        owner = event.partition("/")[0].removeprefix(_PREFIX)
        if event.startswith(_PREFIX) and owner.isdigit() and event not in _events.values():
            yield int(owner), event


def _names() -> Path | None:
    """Where probes are named; None where tracefs is not mounted or not ours to write, or the kernel has no kprobes."""
    return next((path for root in TRACEFS if os.access(path := root / "kprobe_events", os.W_OK)), None)


def _write(names: Path, line: str) -> None:
    """Appended: whoever truncates this file removes everybody's probes.  Python's own "a" would seek: refused."""
    fd = os.open(names, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)
