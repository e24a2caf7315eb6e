"""A table for people: where the time of the target's threads went, and what was done; one column for each run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from chainbench_agent.evidence.figure import Figure
from chainbench_agent.evidence.figures import Figures
from chainbench_agent.evidence.ledger_figures import LEDGER
from chainbench_agent.evidence.model import Evidence
from chainbench_agent.export.format import Format

TOP_SYSCALLS = 6
LEAST_MS = 1.0
"""Parts of the ledger that are shorter than this in every run are left out."""

FIGURES = (
    ("programs started", "exec", "exec_count", ""),
    ("context switches", "cpu", "context_switches", ""),
    ("run-queue latency, median (µs)", "runqlat", "p50_us", ""),
    ("run-queue latency, 95 % (µs)", "runqlat", "p95_us", ""),
    ("system calls", "syscalls", "total", ""),
    ("flushes (fsync)", "syscalls", "by_name", "fsync"),
    ("block I/O, requests", "biolatency", "count", ""),
    ("block I/O latency, 95 % (µs)", "biolatency", "p95_us", ""),
)
"""(title of the row, module, figure, system call)."""


class Cell(NamedTuple):
    """A number, and its standard error where it is an estimate."""

    number: float
    error: float | None = None

    def __str__(self) -> str:
        return _text(self.number) + (f" ± {_text(self.error)}" if self.error else "")


Row = tuple[str, Sequence[Cell | None]]
"""The title of a row, and the number of each run; None: absent there."""


class Table:
    """See the top of this file."""

    name = "table"
    media_type = "text/plain; charset=utf-8"

    def render(self, runs: Sequence[Evidence]) -> str:
        """Heads of columns are the scenarios; mock data is marked."""
        heads = [(run.run.scenario or run.run.id) + ("" if run.available else " (mock)") for run in runs]
        durations = [Cell(run.run.duration_ms) for run in runs]
        return aligned(heads, [("run (ms)", durations), *rows([Figures(run) for run in runs])]) + "\n"


FORMAT: Format = Table()


def rows(runs: Sequence[Figures]) -> Iterator[Row]:
    """The ledger's lines, the chosen figures, and the system calls that differ most."""
    yield from _ledger_rows(runs)
    for title, module, name, syscall in FIGURES:
        labels = {"syscall": syscall} if syscall else {}
        yield title, [_cell(run.find(module, name, **labels)) for run in runs]
    yield from _syscall_rows(runs)


def ledger_lines(figures: Figures) -> dict[str, float]:
    """Where the time of all threads went, in milliseconds; empty without a ledger."""
    on_cpu, runnable, unexplained = (
        figures.find(LEDGER, name) for name in ("on_cpu_ms", "runnable_ms", "unexplained_ms")
    )
    categories = {f"blocked: {dict(one.labels)['category']}": one for one in figures.named(LEDGER, "category_ms")}
    lines = {"on a CPU": on_cpu, "waiting for a CPU": runnable, **categories, "unexplained": unexplained}
    return {name: line.number for name, line in lines.items() if line and line.number is not None}


def aligned(heads: Sequence[str], table: Sequence[Row]) -> str:
    """Columns as wide as their widest cell, numbers to the right; two runs have a ratio."""
    ratio = len(heads) == 2
    lines = [["", *heads, *(["ratio"] if ratio else [])]]
    for name, cells in table:
        numbers = [str(cell) if cell else "-" for cell in cells]
        lines.append([name, *numbers, *([_ratio(*cells)] if ratio else [])])
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    texts = (
        "   ".join([f"{name:<{first}}", *(f"{cell:>{width}}" for cell, width in zip(cells, others, strict=True))])
        for name, *cells in lines
    )
    return "\n".join(text.rstrip() for text in texts)


def _cell(figure: Figure | None) -> Cell | None:
    return Cell(figure.number, figure.error) if figure and figure.number is not None else None


def _ledger_rows(runs: Sequence[Figures]) -> Iterator[Row]:
    """The longest line first; below them, their sum.  A category that only some runs have is zero in the others."""
    ledgers = [ledger_lines(run) for run in runs]
    if not all(ledgers):
        return
    lines = {name: [ledger.get(name, 0.0) for ledger in ledgers] for name in chain(*ledgers)}
    for name, numbers in sorted(lines.items(), key=lambda line: sum(line[1]), reverse=True):
        if max(numbers) >= LEAST_MS:
            yield f"  {name}", [Cell(number) for number in numbers]
    yield "time of all its threads (ms)", [Cell(sum(ledger.values())) for ledger in ledgers]


def _syscall_rows(runs: Sequence[Figures]) -> Iterator[Row]:
    """The system calls that differ most, or of one run the most frequent; without those that have a row already."""
    shown = {syscall for *_, syscall in FIGURES}
    calls = [_syscalls(run) for run in runs]
    counts = {
        name: [of_run[name].number if name in of_run else 0 for of_run in calls]
        for name in chain(*calls)
        if name not in shown
    }
    differences = {name: max(of_call) - (min(of_call) if len(runs) > 1 else 0) for name, of_call in counts.items()}
    for name in sorted(differences, key=differences.__getitem__, reverse=True)[:TOP_SYSCALLS]:
        yield f"system call {name}", [of_run.get(name) for of_run in calls]


def _syscalls(run: Figures) -> dict[str, Cell]:
    found = ((dict(figure.labels).get("syscall"), _cell(figure)) for figure in run.named("syscalls", "by_name"))
    return {name: cell for name, cell in found if name and cell}


def _ratio(left: Cell | None, right: Cell | None) -> str:
    return f"{left.number / right.number:.1f} x" if left and right and left.number and right.number else ""


def _text(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:,.1f}"
