"""Blocked time by wait, as the ledger takes it from the module that explains waits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from chainbench_agent.catalog.names import Frames


@dataclass(slots=True)
class Sampled:
    """Blocked time of one wait in one function: see probes/wait_reasons.py."""

    exact_ns: int = 0
    observed_ns: int = 0
    weight_ns: int = 0
    walks: int = 0
    variance_us2: int = 0

    def add(self, other: Sampled) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


WaitStacks = dict[int, dict[Frames, Sampled]]
"""Wait key → functions, innermost first → what was sampled there."""


def no_stacks() -> WaitStacks:
    """To be added to."""
    return defaultdict(lambda: defaultdict(Sampled))


@dataclass(slots=True)
class Waits:
    """Blocked time by wait key in ns, and what is known of the functions that it was in."""

    ns: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    stacks: WaitStacks = field(default_factory=no_stacks)

    def add_known(self, wait: int, frames: Frames, ns: int) -> None:
        """A wait whose length and stack are known, if there are `frames`."""
        self.ns[wait] += ns
        self.stacks[wait][frames].add(Sampled(exact_ns=ns))

    def add(self, other: Waits) -> None:
        for wait, ns in other.ns.items():
            self.ns[wait] += ns
        for wait, stacks in other.stacks.items():
            for frames, sampled in stacks.items():
                self.stacks[wait][frames].add(sampled)


@dataclass(frozen=True, slots=True)
class BlockedTime:
    """The waits of a target as a whole, with those open at the end, and of each thread, without them."""

    whole: Waits
    threads: Mapping[tuple[int, int], Waits]
    """Thread (tid, begin_ns) → its waits."""
