"""Reads the kernel's own counters in /proc: those of declared Procfs metrics, and those for the cross-check."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
STAT, VMSTAT = PROC / "stat", PROC / "vmstat"


def kernel_counters() -> dict[str, int]:
    """`/proc/stat` since boot: idle_ms, on_cpu_ms (both in steps of a tick), context_switches, forks.

    Also page_allocs: the sum of pgalloc_… in `/proc/vmstat`, of all zones.
    """
    tick_ms = 1000 // os.sysconf("SC_CLK_TCK")
    found = {}
    for line in STAT.read_text().splitlines():
        key, *numbers = line.split()
        if key == "cpu":
            user, nice, system, idle, iowait, irq, softirq, *_ = map(int, numbers)
            found["idle_ms"] = (idle + iowait) * tick_ms
            found["on_cpu_ms"] = (user + nice + system + irq + softirq) * tick_ms
        elif key == "ctxt":
            found["context_switches"] = int(numbers[0])
        elif key == "processes":
            found["forks"] = int(numbers[0])
    with suppress(FileNotFoundError):
        lines = (line.split() for line in VMSTAT.read_text().splitlines())
        if zones := [int(number) for name, number in lines if name.startswith("pgalloc_")]:
            found["page_allocs"] = sum(zones)
    return found


def proc_counters(fields: Iterable[str]) -> dict[str, int]:
    """Counters of the whole machine, each named `file:field` below /proc; one that this kernel lacks is left out.

    `vmstat:pswpin` stands in a line `pswpin 7`; `net/snmp:Tcp.RetransSegs` in a line of names and one of numbers.
    """
    wanted = set(fields)
    found: dict[str, int] = {}
    for file in {field.split(":")[0] for field in wanted}:
        with suppress(FileNotFoundError):
            lines = [line.split() for line in (PROC / file).read_text().splitlines()]
            numbers = _pairs(lines) if lines and lines[0][0].endswith(":") else dict(lines)
            found |= {f"{file}:{name}": int(number) for name, number in numbers.items() if f"{file}:{name}" in wanted}
    return found


def _pairs(lines: list[list[str]]) -> dict[str, str]:
    """`Tcp: InSegs OutSegs` above `Tcp: 3 4`."""
    return {
        f"{names[0].removesuffix(':')}.{name}": number
        for names, numbers in zip(lines[::2], lines[1::2], strict=True)
        for name, number in zip(names[1:], numbers[1:], strict=True)
    }
