"""All figures of an evidence: the one place where its numbers are read.  Pure.

Whatever exports, shows or compares numbers takes them from here, and never by the keys of the JSON:

    figures = Figures(evidence)
    figures.of_module("io")                               everything that the module has
    figures.named("syscalls", "by_name")                  one for each system call
    figures.find("syscalls", "by_name", syscall="read")   exactly one

A metric without a value is a figure too: it is `absent`, with the reason.  A table or a list that is empty has been
measured, and has no figures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from chainbench_agent.catalog import Module
from chainbench_agent.evidence.figure import Figure
from chainbench_agent.evidence.ledger_figures import LEDGER, ledger_figures
from chainbench_agent.evidence.model import Evidence
from chainbench_agent.evidence.section_figures import section_figures
from chainbench_agent.probes import CATALOG


class Figures:
    """Iterates over all figures, in the order of the catalogue, the ledger's last; reads a module when it is needed."""

    def __init__(self, evidence: Evidence, catalog: Iterable[Module] = CATALOG) -> None:
        self._evidence = evidence
        self._catalog = {module.name: module for module in catalog}
        self._read: dict[str, tuple[Figure, ...]] = {}
        self._by_name: dict[tuple[str, str], list[Figure]] = defaultdict(list)

    def __iter__(self) -> Iterator[Figure]:
        for module in (*self._catalog, LEDGER):
            yield from self.of_module(module)

    def of_module(self, module: str) -> tuple[Figure, ...]:
        """A module's figures, or the ledger's; KeyError if there is no such module."""
        if module not in self._read:
            self._read[module] = tuple(self._figures(module))
            for figure in self._read[module]:
                self._by_name[module, figure.name].append(figure)
        return self._read[module]

    def named(self, module: str, name: str) -> tuple[Figure, ...]:
        """All of one name, which differ by their labels; empty if there is none."""
        self.of_module(module)
        return tuple(self._by_name.get((module, name), ()))

    def find(self, module: str, name: str, **labels: str) -> Figure | None:
        """The one with exactly these labels; None if there is none."""
        return next((figure for figure in self.named(module, name) if dict(figure.labels) == labels), None)

    def _figures(self, module: str) -> Iterator[Figure]:
        if module == LEDGER:
            return ledger_figures(self._evidence)
        return section_figures(self._evidence, self._catalog[module])
