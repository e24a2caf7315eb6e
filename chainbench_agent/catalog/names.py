"""Names for numbers: those that the host of a run has, and how a declaration refers to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class CallStack(NamedTuple):
    """A call stack of a run: by its id in the map, and whose it is.

    `pid` 0: the kernel's.  `called_at`: in user space, from where the function was called that the stack was taken in;
    without an `id` (NO_STACK) that place is all of the stack.
    """

    id: int
    pid: int = 0
    called_at: int = 0


NO_STACK = -1

Frames = tuple[str, ...]
"""Functions, innermost first."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of numbers on this host, and what the kernel itself counted; read with a sample (kernel/reading)."""

    tables: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Table of the host (kernel/reading/index_names.py) → index → name.  An index without a name goes by its number."""
    stacks: Mapping[str, Mapping[CallStack, Frames]] = field(default_factory=dict)
    """Map of a declared `Stacks`, as MODULE_NAME → stack → its functions."""
    throttled_before: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Cgroup id → (nr_throttled, throttled_ns) when the run began, of every cgroup that had been throttled."""
    throttled_after: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """The same when the run ended, of the cgroups that were still there."""
    run_ns: int = 0
    """How long the run lasted."""
    disk_ios: Mapping[int, int] = field(default_factory=dict)
    """Disk → how many reads, writes and discards finished on it in the run, by the kernel's own count."""
    quotas_before: frozenset[int] | None = None
    """The cgroups whose quotas held for the target when the run began; None for the whole machine: all do."""
    quotas_after: frozenset[int] | None = None
    """The same when the run ended."""
    no_calls: str = ""
    """Why the system call that a thread was blocked in is not known here; empty if it is."""

    def of(self, table: str, index: int) -> str:
        return self.tables.get(table, {}).get(index, str(index))

    def of_device(self, number: int) -> str:
        """A block device's name, or its "major:minor" where it has none any more."""
        return self.tables.get("devices", {}).get(number, f"{number >> 20}:{number & 0xFFFFF}")

    def frames(self, stacks: str, stack: CallStack) -> Frames:
        """The functions of a stack in that map; empty if they are not known."""
        return self.stacks.get(stacks, {}).get(stack, ())


IndexNames = Callable[[Names, int], str]
"""Answers the name of an index of a Table on this host."""


@dataclass(frozen=True, slots=True)
class HostNames:
    """The names that the host has for indexes; `table`: one of `Names.tables`."""

    table: str

    def __call__(self, names: Names, index: int) -> str:
        return names.of(self.table, index)


@dataclass(frozen=True, slots=True)
class FixedNames:
    """The same names on every host."""

    names: Sequence[str]

    def __call__(self, _names: Names, index: int) -> str:
        return self.names[index]
