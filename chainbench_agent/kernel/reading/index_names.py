"""Looks up what indexes are called on this host: system calls, interrupts, softirqs, C-states, block devices."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from chainbench_agent.abi.kernel_text import text_of, text_of_path
from chainbench_agent.host import procfs
from chainbench_agent.host.syscall_names import syscalls

SOFTIRQS = ("HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU")
INTERRUPTS = Path("/proc/interrupts")
CPUIDLE = Path("/sys/devices/system/cpu/cpu0/cpuidle")
BLOCK_DEVICES = Path("/sys/dev/block")
UNKNOWN_STATE = 15


def tables() -> Mapping[str, Mapping[int, str]]:
    """Table (catalog.HostNames) → index → name.  Read at the end of a run: interrupts come and go."""
    return {
        "calls": syscalls(os.uname().machine),
        "calls_32bit": syscalls("i386"),
        "irqs": interrupts(),
        "softirqs": dict(enumerate(SOFTIRQS)),
        "cstates": cstates(),
        "devices": block_devices(),
        "schedulers": schedulers(),
        "disks_below": disks_below(),
    }


def interrupts() -> dict[int, str]:
    """Number → "number:device", because several lines may serve one device."""
    found = {}
    for line in procfs.lines(INTERRUPTS):
        match = re.match(rb"\s*(\d+):(?:\s+\d+)+\s+(.*)", line)
        if match and match[2]:
            found[int(match[1])] = text_of(match[1] + b":" + match[2].split()[-1])
    return found


def cstates() -> dict[int, str]:
    """C-state → name; 0 and 1 are what the kernel's default idle loop reports where there is no cpuidle driver."""
    found = {0: "POLL", 1: "idle"}
    for name in CPUIDLE.glob("state*/name"):
        found[int(name.parent.name.removeprefix("state"))] = text_of(name.read_bytes().strip())
    return found | {UNKNOWN_STATE: "unknown"}


def _disks() -> Iterator[tuple[int, Path]]:
    """The kernel's number of every block device (major << 20 | minor), with its place in sysfs."""
    for link in BLOCK_DEVICES.glob("*:*"):
        major, minor = map(int, link.name.split(":"))
        yield major << 20 | minor, link


def block_devices() -> dict[int, str]:
    """Number → name as in /dev: sda, nvme0n1, loop0; a slash in it is a `!` in sysfs."""
    return {number: text_of_path(link.readlink().name.replace("!", "/")) for number, link in _disks()}


def schedulers() -> dict[int, str]:
    """Number → I/O scheduler: the one in brackets, or the only one."""
    found = {}
    for number, link in _disks():
        with suppress(OSError):  # a partition has none; a device may be gone meanwhile
            offered = (link / "queue/scheduler").read_text()
            chosen = re.search(r"\[(.+?)\]", offered)
            found[number] = chosen[1] if chosen else offered.strip()
    return found


def disks_below() -> dict[int, str]:
    """Number → the disks that it is stacked on, as "loop0, loop1"; of those that are stacked."""
    found = {}
    for number, link in _disks():
        with suppress(OSError):  # a partition has no such directory; a device may be gone meanwhile
            found[number] = ", ".join(sorted(disk.name.replace("!", "/") for disk in (link / "slaves").iterdir()))
    return {number: below for number, below in found.items() if below}
