"""Which metric each kernel offers, and from what: support.json, and docs/support.md made of it.

    make support                                            # asks every kernel again; each takes a minute or two
    .venv/bin/python tests/vm/support.py --write 6.1        # only this one

A column is what tests/measured/test_support.py writes, in a guest or here.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from debian_kernel import SERIES, obtain
from guest import REPO, boot

RECORDED = Path(__file__).with_name("support.json")
DOCUMENT = REPO / "docs/support.md"
RESTRICTED = "6.18 without kprobes and fentry"
COLUMNS = (*SERIES, RESTRICTED)
UPDATE = "`make support` boots the kernels again and writes docs/support.md"
MEASURE = ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/measured/test_support.py")

Cell = Mapping[str, str]
"""`{"sources": …}` or `{"unavailable": …}`."""
Column = Mapping[str, Mapping[str, Cell]]
"""Module → metric → cell."""

HEAD = f"""# What works on which kernel

This table is what the agent reported after it had loaded its programs on each of these kernels; the tests compare it.
Debian's kernels are those of the packages in `tests/vm/debian_kernel.py`, booted in a virtual machine without PMU
counters and without frequency scaling. The last column is a kernel that allows neither kprobes nor fentry. Options
were loaded for this table; a run has an option only if it names it. Where a `kretprobe` is used, the kernel follows
at most 1,024 calls of a function at once (without tracefs on 5.10 as many as there are CPUs). If a thread of the
target was not seen to return from a call, the call is counted in `loss.causes.returns_missed`. A call that was in
progress when the run was prepared is not counted.
{UPDATE}.

"""


def recorded() -> dict[str, Column]:
    found: dict[str, Column] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    return {name: found[name] for name in COLUMNS if name in found}


def render(columns: Mapping[str, Column]) -> str:
    """The document: a line for the metrics of a module that are fed alike on every kernel."""
    notes: dict[str, int] = {}
    rows = [("Module", "Metrics", "Fed by", *columns), ("---",) * (3 + len(columns))]
    for module in dict.fromkeys(name for column in columns.values() for name in column):
        for metrics, cells in groups(module, columns):
            for line, (sources, marks) in enumerate(lines(cells, notes)):
                named = ("", "") if line else (module, ", ".join(f"`{metric}`" for metric in metrics))
                rows.append((*named, sources, *marks))
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return HEAD + table + "\n" + "".join(f"[^{number}]: {reason}\n" for reason, number in notes.items())


def groups(module: str, columns: Mapping[str, Column]) -> Iterator[tuple[list[str], list[Cell]]]:
    """Metrics, and the cell that they have in each column."""
    found: dict[str, tuple[list[str], list[Cell]]] = {}
    for metric in dict.fromkeys(name for column in columns.values() for name in column.get(module, {})):
        cells = [column.get(module, {}).get(metric, {}) for column in columns.values()]
        found.setdefault(json.dumps(cells), ([], cells))[0].append(metric)
    yield from found.values()


def lines(cells: list[Cell], notes: dict[str, int]) -> Iterator[tuple[str, list[str]]]:
    """A line for each set of sources, with a mark where it is used; the first also has the notes on who has none."""
    for line, sources in enumerate(dict.fromkeys(cell["sources"] for cell in cells if "sources" in cell) or [""]):
        marks = []
        for cell in cells:
            mark = "yes" if cell.get("sources") == sources else ""
            if "unavailable" in cell and not line:
                mark = f"[^{notes.setdefault(cell['unavailable'], len(notes) + 1)}]"
            marks.append(mark)
        yield by_kind(sources), marks


def by_kind(sources: str) -> str:
    """`raw_tracepoint:a, raw_tracepoint:b, fexit:c` → `raw_tracepoint` a, b; `fexit` c"""
    kinds: dict[str, list[str]] = {}
    for source in filter(None, sources.split(", ")):
        kind, _, place = source.partition(":")
        kinds.setdefault(kind, []).append(place)
    return "; ".join(f"{kind} `{'` `'.join(places)}`" for kind, places in kinds.items())


def ask(name: str) -> Column:
    """The report of the agent on a kernel, which is booted for it unless it is this one."""
    with tempfile.TemporaryDirectory() as temporary:
        answer = Path(temporary) / "support.json"
        if name == RESTRICTED:
            subprocess.run(
                [sys.executable, *MEASURE[1:]],
                cwd=REPO,
                env=os.environ | {"CHAINBENCH_SUPPORT": str(answer)},
                check=False,
            )
        else:
            boot(obtain(name), answer.parent, ["env", "CHAINBENCH_SUPPORT=/results/support.json", *MEASURE])
        if not answer.exists():
            sys.exit(f"{name} gave no answer")
        found: Column = json.loads(answer.read_text())
        return found


def main() -> int | str:
    match sys.argv[1:]:
        case ["--write", *names] if set(names) <= set(COLUMNS):
            columns = recorded()
            for name in names or COLUMNS:
                columns[name] = ask(name)
            RECORDED.write_text(
                json.dumps({name: columns[name] for name in COLUMNS if name in columns}, indent=1) + "\n"
            )
            DOCUMENT.write_text(render(recorded()))
            return 0
    return f"usage: {sys.argv[0]} --write [{'|'.join(COLUMNS)}]..."


if __name__ == "__main__":
    sys.exit(main())
