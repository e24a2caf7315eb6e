"""Kernel functions by address, from /proc/kallsyms, in two flat arrays (about 4 MB for 150,000 functions)."""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_right
from pathlib import Path

from chainbench_agent.abi.kernel_text import text_of
from chainbench_agent.bpf import libbpf
from chainbench_agent.loading.loader import MapFd

KALLSYMS = Path("/proc/kallsyms")


class KernelSymbols:
    """`name_of(address)`; an empty string when the address lies below all functions or addresses are hidden."""

    def __init__(self, kallsyms: bytes) -> None:
        functions = sorted(
            (int(address, 16), name)
            for address, name in re.findall(rb"^(\w+) [tTwW] ([^.\s]+)", kallsyms, re.MULTILINE)
        )
        self._addresses = array("Q", (address for address, _ in functions))
        self._ends = array("I")
        names = bytearray()
        for _, name in functions:
            names += name
            self._ends.append(len(names))
        self._names = bytes(names)
        sections = {name: address for address, name in functions if name.startswith(b"__sched_text_")}
        self._scheduler = sections.get(b"__sched_text_start", 0), sections.get(b"__sched_text_end", 0)

    @classmethod
    def load(cls) -> KernelSymbols:
        return cls(KALLSYMS.read_bytes())

    @property
    def hidden(self) -> bool:
        """True if the kernel shows zeros (kernel.kptr_restrict, or no CAP_SYSLOG)."""
        return not self._addresses or self._addresses[-1] == 0

    def name_of(self, address: int) -> str:
        index = bisect_right(self._addresses, address) - 1
        if index < 0 or self.hidden:
            return ""
        start = self._ends[index - 1] if index else 0
        return text_of(self._names[start : self._ends[index]])

    def stacks(self, stacks: MapFd) -> dict[int, tuple[str, ...]]:
        """The stacks of a hash id → `struct offcpu_frames`: id → functions, innermost first.

        They begin with the function of the scheduler or of a lock that was called, if it is one.  None where addresses
        are hidden.
        """
        if self.hidden:
            return {}
        found = libbpf.items(stacks.fd, stacks.key_size, stacks.value_size)
        return {int.from_bytes(stack_id, "little"): self._stack(raw) for stack_id, raw in found.items()}

    def _stack(self, raw: bytes) -> tuple[str, ...]:
        *frames, called = struct.unpack(f"={len(raw) // 8}Q", raw)
        begin, end = self._scheduler
        innermost = (called,) if begin <= called < end else ()
        # a function's padding, at which some kernels enter it, is a symbol of its own
        return tuple(self.name_of(address).removeprefix("__pfx_") for address in (*innermost, *frames) if address)


def stack_addresses(stacks: MapFd, stack_id: int) -> tuple[int, ...]:
    """A stack in that map, innermost first; none if there is none of that number."""
    try:
        raw = libbpf.lookup(stacks.fd, stack_id, stacks.value_size) if stack_id >= 0 else b""
    except OSError:
        return ()
    return tuple(filter(None, struct.unpack(f"={len(raw) // 8}Q", raw)))
