"""Two runs of the demo side by side, for people: the table, and what the difference comes from."""

from __future__ import annotations

from chainbench_agent.evidence.figures import Figures
from chainbench_agent.evidence.ledger_figures import LEDGER
from chainbench_agent.evidence.model import Evidence
from chainbench_agent.export.formats.as_table import LEAST_MS, Cell, aligned, ledger_lines, rows

TOP_PARTS = 3


def side_by_side(baseline: Evidence, optimized: Evidence, baseline_ms: float, optimized_ms: float) -> str:
    """A heading that says whether the numbers are measured, the table, and a sentence.  Wall times are the runner's."""
    runs = Figures(baseline), Figures(optimized)
    wall = "wall time of the workload (ms)", [Cell(baseline_ms), Cell(optimized_ms)]
    return "\n".join([_heading(baseline), "", aligned(("baseline", "optimized"), [wall, *rows(runs)]), *_answer(*runs)])


def _heading(evidence: Evidence) -> str:
    if evidence.available:
        return "Measured with eBPF in this kernel; only this workload counts."
    return f"MOCK DATA: all but the wall time is made up, because eBPF cannot run here.\n{evidence.reason}"


def _answer(baseline: Figures, optimized: Figures) -> list[str]:
    """Why it is faster: the parts of the ledger that differ most."""
    left, right = ledger_lines(baseline), ledger_lines(optimized)
    saved = {name: ms - right.get(name, 0) for name, ms in left.items()}
    most = [name for name in sorted(saved, key=saved.__getitem__, reverse=True) if saved[name] >= LEAST_MS]
    if not most:
        return []
    parts = ", ".join(f"{saved[name]:,.1f} {name}{_longest_reason(baseline, name)}" for name in most[:TOP_PARTS])
    total = sum(left.values()) - sum(right.values())
    return ["", f"Its threads took {total:,.1f} ms less: {parts}."]


def _longest_reason(figures: Figures, line: str) -> str:
    """For a category of waits: the kernel's function that waited longest, and the system call that it was in."""
    for reason in figures.named(LEDGER, "reason_ms"):  # the longest first
        labels = dict(reason.labels)
        if line == f"blocked: {labels['category']}":
            return (
                f" ({labels['reason']} in {labels['syscall']})" if labels.get("syscall") else f" ({labels['reason']})"
            )
    return ""
