"""Fills the tables that probes look things up in: kinds of system calls, which wait for a file; terminals."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from chainbench_agent.abi.c_struct import CStruct
from chainbench_agent.bpf import libbpf
from chainbench_agent.catalog import Module
from chainbench_agent.host.syscall_names import syscalls
from chainbench_agent.kernel.programs import Programs
from chainbench_agent.loading.loader import MapFd
from chainbench_agent.loading.unit_text import followed_calls
from chainbench_agent.probes.wait_key import FILE_CALLS

TTY_DRIVERS = Path("/proc/tty/drivers")

CALL_KINDS = CStruct(of_64bit="I", of_32bit="I")  # struct cb_call_kinds of probes/call_kinds.h
NO_CALLS = (
    "the registers that threads entered the kernel with are not where they are looked for, so the system calls that "
    "threads are blocked in are not known"
)
_NATIVE, _COMPAT = 1, 2  # OFFCPU_NATIVE_TAKES_FILE, OFFCPU_COMPAT_TAKES_FILE
_WORD = 4


def fill(maps: Mapping[str, MapFd], modules: Iterable[Module]) -> None:
    """Before each run: terminals may have come with a driver meanwhile."""
    for number, *kinds in followed_calls(os.uname().machine):
        libbpf.update(maps["cb_call_kinds"].fd, number, CALL_KINDS.pack(*kinds))
    for module in modules:
        for declared in module.host_tables:
            table = maps[f"{module.name}_{declared.name}"]
            for index, word in TABLES[declared.of]().items():
                if index < table.entries:
                    libbpf.update(table.fd, index, word.to_bytes(_WORD, "little"))


def unknown_of_waits(programs: Programs, failed: Mapping[str, str], no_calls: str) -> dict[str, str]:
    """The parts of a wait's name that are unknown on this kernel → why.  `failed`: programs that did not load."""
    found = {"top_reasons.syscall": no_calls} if no_calls else {}
    waker = programs.chosen.get("sched_wakeup")
    if waker and waker.kind != "tp_btf":
        refused = failed.get("cb_sched_wakeup_0", "it does not attach")
        found["top_reasons.function"] = (
            f"no stack is walked at the wake-up, because tp_btf:sched_wakeup fails: {refused}"
        )
    return found


def file_calls(machine: str) -> dict[int, int]:
    """Number → in which table of calls (bits) it is one that waits for its first argument's file."""
    found: dict[int, int] = {}
    for bit, table in ((_NATIVE, syscalls(machine)), (_COMPAT, syscalls("i386"))):
        for number, name in table.items():
            if name in FILE_CALLS:
                found[number] = found.get(number, 0) | bit
    return found


def tty_majors() -> set[int]:
    """The major numbers of all terminals that this kernel has drivers for."""
    found = set()
    with suppress(OSError):
        for line in TTY_DRIVERS.read_text().splitlines():
            words = line.rsplit(maxsplit=3)
            found |= {int(word) for word in words[1:2] if word.isdigit()}
    return found


TABLES: Mapping[str, Callable[[], Mapping[int, int]]] = {
    "calls_for_files": lambda: file_calls(os.uname().machine),
    "terminal_majors": lambda: dict.fromkeys(tty_majors(), 1),
}
"""The content of a declared HostTable: index → word."""
