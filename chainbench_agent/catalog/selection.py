"""The selection of a run: which modules and options it collects, and how many of the hottest events.

A name is a module's, `exec`, or that of an option, `module:option`, which brings its module along.  Naming is done
twice, by the same rules: the agent's `--probes` says what is loaded, a run's `probes` what of it collects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALL = "all"
"""Every module, and no option: options are expensive or special, and must be named."""

MAX_SAMPLE_INTERVAL = 10_000
"""One in so many of 100 million events is known to 1 %; above, hardly anything is left to count."""


@dataclass(frozen=True, slots=True)
class Selection:
    """`probes` empty: all modules that are loaded.  `sample_interval` 1: every event is counted."""

    probes: tuple[str, ...] = ()
    sample_interval: int = 1

    def collects(self, module: str) -> bool:
        return not self.probes or any(module == module_of(name) for name in self.probes)

    def includes(self, option: str) -> bool:
        """Whether an option was asked for; what belongs to none ("") always is."""
        return not option or option in self.probes


EVERYTHING = Selection()
"""All modules without their options, and every event."""


def module_of(name: str) -> str:
    return name.partition(":")[0]


def choose(asked: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The `known` names that `asked` stands for, in their order."""
    named = {*asked, *map(module_of, asked)}
    return tuple(name for name in known if name in named or (ALL in named and ":" not in name))


def unknown(asked: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The names in `asked` that are not known, each once."""
    return tuple(name for name in dict.fromkeys(asked) if name not in (ALL, *known))
