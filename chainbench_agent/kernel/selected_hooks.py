"""Selects the hooks and modules of the loaded unit that a run needs.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chainbench_agent.catalog import Hook, Module
from chainbench_agent.catalog.selection import Selection


def selected_hooks(
    modules: Sequence[Module], hooks: Mapping[str, Hook], follows: frozenset[str], selection: Selection
) -> frozenset[str]:
    """The hooks to attach: those of the selection's modules and options, and those by which the target is followed."""
    named = (hooks[name] for module in modules if selection.collects(module.name) for name in module.hooks)
    needed = (hook.raised_on or (hook.name,) for hook in named if selection.includes(hook.option))
    return follows | {name for on in needed for name in on}


def idle_modules(modules: Sequence[Module], selection: Selection) -> int:
    """A bit for each module that does not collect: its handlers are passed over in programs that it shares."""
    return sum(1 << place for place, module in enumerate(modules) if not selection.collects(module.name))
