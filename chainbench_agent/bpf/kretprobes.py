"""Kretprobes that follow up to 1,024 calls at once, created in tracefs and attached to by perf.

A kretprobe follows a limited number of calls that have not returned.  With perf_event_open the kernel chooses the
limit, on Debian's 5.10 the number of CPUs; only tracefs accepts a number.  So the probe is created there, with a name
that has this process' pid.  Closing the descriptor does not remove the name, so `close` does; names that a killed
agent left are removed when the next one starts.
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
"""The limit of each probe: some 100 bytes per call.  The kernel accepts 4,096 at most."""

_PREFIX = "chainbench_"
_numbers = count()
_events: dict[int, str] = {}
"""Descriptor → name of its probe, GROUP/EVENT."""


def open_kretprobe(function: str, program: int) -> int:
    """Runs `program` at each return of a kernel function, until close(); raises OSError.

    If tracefs cannot be written, the kernel chooses how many calls are followed.
    """
    definitions = _definitions()
    if definitions is None:
        return perf_events.open_kprobe(function, program, at_return=True)
    event = f"{_PREFIX}{os.getpid()}/{function}_{next(_numbers)}"
    _write(definitions, f"r{CALLS_AT_ONCE}:{event} {function}")
    try:
        number = int((definitions.parent / "events" / event / "id").read_text())
        fd = perf_events.open_tracepoint(number, program)
    except OSError:
        _write(definitions, f"-:{event}")
        raise
    _events[fd] = event
    return fd


def close(fd: int) -> None:
    """Closes a descriptor, and removes its probe's name if open_kretprobe() has made one."""
    os.close(fd)
    event = _events.pop(fd, "")
    if event and (definitions := _definitions()):
        _write(definitions, f"-:{event}")


def remove_leftovers() -> None:
    """Removes the probes of agents that have ended.  A probe that is in use cannot be removed."""
    definitions = _definitions()
    if definitions is None:
        return
    for pid, event in _leftovers(definitions):
        if pid == os.getpid() or not (PROC / str(pid)).exists():
            with suppress(OSError):
                _write(definitions, f"-:{event}")


def _leftovers(definitions: Path) -> Iterator[tuple[int, str]]:
    """(process, GROUP/EVENT) of the probes of all agents, without those that this process has open."""
    for line in definitions.read_bytes().split(b"\n"):
        event = line.partition(b" ")[0].partition(b":")[2].decode(errors="replace")
        owner = event.partition("/")[0].removeprefix(_PREFIX)
        if event.startswith(_PREFIX) and owner.isdigit() and event not in _events.values():
            yield int(owner), event


def _definitions() -> Path | None:
    """The file that defines probes; None if tracefs is not mounted or not writable, or the kernel has no kprobes."""
    return next((path for root in TRACEFS if os.access(path := root / "kprobe_events", os.W_OK)), None)


def _write(definitions: Path, line: str) -> None:
    """Appends a line.  Truncating this file removes all probes; Python's mode "a" seeks, which tracefs refuses."""
    fd = os.open(definitions, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)
