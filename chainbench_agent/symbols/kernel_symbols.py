"""Names kernel functions by address, from /proc/kallsyms, in two flat arrays (about 4 MB for 150,000 functions)."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path

from chainbench_agent.abi.kernel_text import text_of

KALLSYMS = Path("/proc/kallsyms")


class KernelSymbols:
    """Names of addresses in the kernel, and of the stacks that programs have recorded."""

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
        """The function at `address`; empty if that lies below all functions, or addresses are hidden."""
        index = bisect_right(self._addresses, address) - 1
        if index < 0 or self.hidden:
            return ""
        start = self._ends[index - 1] if index else 0
        return text_of(self._names[start : self._ends[index]])

    def stack(self, addresses: Iterable[int], called: int = 0) -> tuple[str, ...]:
        """The functions of a stack, innermost first; 0 is no address.

        `called`: the function that the innermost one called.  It comes first if it is the scheduler's or a lock's.
        """
        begin, end = self._scheduler
        innermost = (called,) if begin <= called < end else ()
        # a function's padding, at which some kernels enter it, is a symbol of its own
        return tuple(self.name_of(address).removeprefix("__pfx_") for address in (*innermost, *addresses) if address)
