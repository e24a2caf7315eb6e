"""What the kernel itself keeps of the same things, for the cross-check."""

from __future__ import annotations

import os
from pathlib import Path

STAT = Path("/proc/stat")


def kernel_counters() -> dict[str, int]:
    """`/proc/stat` since boot: idle_ms, on_cpu_ms (both in steps of a tick), context_switches, forks."""
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
    return found
