"""Finds figures by their roles, whichever module has them (catalog.Role).  Pure."""

from __future__ import annotations

from collections.abc import Mapping

from chainbench_agent.catalog import Module, Role, RoleName
from chainbench_agent.evidence.model import Section
from chainbench_agent.probes import CATALOG

_OWNERS: Mapping[RoleName, tuple[Module, Role]] = {
    role.name: (module, role) for module in CATALOG for role in module.roles
}

EXPLAINS_WAITS = next(module for module in CATALOG if module.explain_waits)
"""The module that the ledger of a target is made from; without it, threads that hardly ran are not known."""


def owner(role: RoleName) -> Module:
    return _OWNERS[role][0]


def key(role: RoleName) -> str:
    """`SECTION.FIGURE`, as in the evidence's `cross_check`."""
    module, found = _OWNERS[role]
    return f"{module.section_key}.{found.figures[0]}"


def value(role: RoleName, sections: Mapping[str, Section]) -> float | None:
    """The figure of this evidence; None where it, or a part of it, is absent."""
    module, found = _OWNERS[role]
    parts = [number(sections.get(module.section_key, {}).get(figure)) for figure in found.figures]
    return None if None in parts else sum(part for part in parts if part is not None)


def number(figure: object) -> float | None:
    """A figure as a number, a mapping as the sum of its values; None for None."""
    if isinstance(figure, Mapping):
        return sum(figure.values())
    return figure if isinstance(figure, int | float) else None
