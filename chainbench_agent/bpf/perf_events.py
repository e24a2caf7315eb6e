"""Opens perf events, and attaches BPF programs to kprobes, uprobes, tracepoints and counters.

glibc has no wrapper of perf_event_open(2).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

DEVICES = Path("/sys/bus/event_source/devices")
ONLINE = Path("/sys/devices/system/cpu/online")

_SYSCALL = {"x86_64": 298, "aarch64": 241}
_CLOEXEC = 8  # PERF_FLAG_FD_CLOEXEC
_TIMES = 3  # PERF_FORMAT_TOTAL_TIME_ENABLED | _RUNNING
_DISABLED = 1  # the first of the flags
_ENABLE = 0x2400  # PERF_EVENT_IOC_ENABLE
_SET_BPF = 0x40042408  # PERF_EVENT_IOC_SET_BPF
_ATTR = struct.Struct("=IIQQQQQIIQQ")
"""struct perf_event_attr up to PERF_ATTR_SIZE_VER1: type, size, config, sample_period, sample_type, read_format, flags,
wakeup_events, bp_type, config1, config2."""

HARDWARE, SOFTWARE, TRACEPOINT, HW_CACHE, RAW = 0, 1, 2, 3, 4
"""enum perf_type_id."""

EVENTS = {"minor-faults": (SOFTWARE, 5), "major-faults": (SOFTWARE, 6)}
"""Name, as in `perf list` → type and config."""


def open_event(  # noqa: PLR0913 - as perf_event_attr has them
    kind: int,
    config: int,
    *,
    cpu: int,
    pid: int = -1,
    period: int = 0,
    config1: int = 0,
    config2: int = 0,
    counting: bool = False,
    flags: int = 0,
) -> int:
    """Opens a counter of `pid` (-1: all processes) on `cpu`; raises OSError, ENOENT if there is no such event.

    `period`: the number of events per overflow, at which an attached program runs; 0 only counts.
    `flags`: bits of perf_event_attr.
    `counting`: the counter starts when it is enabled, and a read also returns the times that it was enabled and ran.
    """
    number = _SYSCALL.get(os.uname().machine)
    if number is None:
        raise OSError(0, f"perf_event_open is not known on {os.uname().machine}")
    read_format, disabled = (_TIMES, _DISABLED) if counting else (0, 0)
    attributes = _ATTR.pack(kind, _ATTR.size, config, period, 0, read_format, flags | disabled, 1, 0, config1, config2)
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.syscall(number, attributes, pid, cpu, -1, _CLOEXEC)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"perf_event_open: {os.strerror(code)}")
    return fd


def attach(fd: int, program: int) -> None:
    """Runs `program` at each overflow of the event."""
    fcntl.ioctl(fd, _SET_BPF, program)
    enable(fd)


def enable(fd: int) -> None:
    fcntl.ioctl(fd, _ENABLE, 0)


def open_kprobe(function: str, program: int, *, at_return: bool) -> int:
    """Attaches `program` to a kernel function; closing the returned descriptor detaches it (Linux 4.17)."""
    return _open_probe("kprobe", function, 0, program, at_return=at_return)


def open_uprobe(file: str, offset: int, program: int, *, at_return: bool) -> int:
    """Attaches `program` at `offset` in a program or library, for all processes; closing detaches it (Linux 4.17)."""
    return _open_probe("uprobe", file, offset, program, at_return=at_return)


def _open_probe(kind: str, name: str, offset: int, program: int, *, at_return: bool) -> int:
    device = DEVICES / kind
    try:
        number = int((device / "type").read_text())
        bit = int((device / "format/retprobe").read_text().removeprefix("config:"))
    except FileNotFoundError:
        raise OSError(2, f"this kernel has no {kind}s") from None
    location = ctypes.create_string_buffer(name.encode())
    fd = open_event(number, at_return << bit, cpu=0, period=1, config1=ctypes.addressof(location), config2=offset)
    return _with_program(fd, program)


def open_tracepoint(number: int, program: int) -> int:
    """Attaches `program` to event `number` of tracefs, on all CPUs; closing the returned descriptor detaches it."""
    return _with_program(open_event(TRACEPOINT, number, cpu=0, period=1), program)


def open_on_each_cpu(name: str, program: int) -> list[int]:
    """Runs `program` on every CPU at each event called `name` in EVENTS; closing the descriptors detaches it."""
    kind, config = EVENTS[name]
    return all_or_none(_with_program(open_event(kind, config, cpu=cpu, period=1), program) for cpu in online_cpus())


def all_or_none(opening: Iterable[int], close: Callable[[int], None] = os.close) -> list[int]:
    """The descriptors that `opening` yields; if it raises OSError, those that it has yielded are closed."""
    opened: list[int] = []
    try:
        for fd in opening:
            opened.append(fd)  # noqa: PERF402 - descriptors opened before a failure must be known
    except OSError:
        for fd in opened:
            close(fd)
        raise
    return opened


def _with_program(fd: int, program: int) -> int:
    try:
        attach(fd, program)
    except OSError:
        os.close(fd)
        raise
    return fd


@cache
def online_cpus() -> tuple[int, ...]:
    """The numbers of the CPUs that are online, from a list such as `0-3,6`."""
    spans = (part.split("-") for part in ONLINE.read_text().strip().split(","))
    return tuple(cpu for span in spans for cpu in range(int(span[0]), int(span[-1]) + 1))
