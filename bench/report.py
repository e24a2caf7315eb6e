"""Renders the page: goals, results, those of other tools, and sentences on missed goals."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from bench.numbers import Figure, Row, shown
from bench.reasons import why
from bench.scale import Series

HEAD = """# Performance

`make bench` writes this page: it measures the agent and other tools alternately, in one session. Each run of it
overwrites the page.

- Machine: {machine}
- Kernel: Linux {kernel}
- Compared with: {versions}
- {rounds} rounds. A number is the median of the rounds, with the spread in brackets: for times the lowest and the
  highest, for slowdowns a 95 % interval of the median. For tails it is the 99th percentile, with the median
  and the worst.
"""
METHOD = """## How it is measured

- **BPF time of an event**: the kernel's run-time statistics of all programs of a subject (`run_time_ns` and
  `run_cnt`), minus the time of an empty program that is attached to the same hooks at the same time, divided by the
  number of events, which is the number of runs of the empty program. The cost of entering a program is not included,
  for any subject.
- **Slowdown**: rounds without and with a subject alternate; each time is compared with its two neighbours without it.
  The kernel's statistics of BPF programs are off, also for the agent, which runs without CAP_SYS_ADMIN as in its
  systemd unit; a separate row shows the additional time where an agent may count its cost.
- **Others**: BCC's tools compile against `chainbench-agent header-tree`. If a tool requires a kprobe that a kernel
  may not have, a bpftrace script on the tracepoint at the same place replaces it (`bench/peers/`).
- **Scale**: see the charts; one "on paper" was computed, not measured.
"""


def render(rows: Sequence[Row], series: Sequence[Series], rounds: int) -> str:
    """Markdown."""
    head = HEAD.format(machine=machine(), kernel=kernel(), versions=versions(), rounds=rounds)
    parts = [head, _missed(rows)]
    parts += [_table(section, list(found)) for section, found in groupby(rows, key=lambda row: row.section)]
    parts += [_charts(series)] if series else []
    return "\n".join([*parts, METHOD])


def _missed(rows: Iterable[Row]) -> str:
    lines = [
        f"- **{row.what}**: {miss}.{f' {reason}' if (reason := why(row.what)) else ''}"
        for row in rows
        for miss in row.misses
    ]
    return "\n".join(["## Missed goals", "", *(lines or ["Nothing."]), ""])


def _table(section: str, rows: Iterable[Row]) -> str:
    lines = [f"## {section}", "", "| what | goal | chainbench-agent | others | |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        asked = [f"≤ {shown(row.reach)} {row.unit}"] if row.reach is not None else []
        asked += ["less than the others"] if row.below_peers and row.peers else []
        others = "<br>".join(f"{name}: {_figure(figure, row.unit)}" for name, figure in row.peers.items())
        ours = _figure(row.ours, row.unit)
        cells = (row.what, ", ".join(asked), f"{ours} ✗" if row.misses else f"**{ours}**", others, row.note)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join([*lines, ""])


def _figure(figure: Figure, unit: str) -> str:
    text = f"{shown(figure.median)} {unit}".strip()
    return text if figure.low == figure.high else f"{text} ({shown(figure.low)} … {shown(figure.high)})"


def _charts(series: Iterable[Series]) -> str:
    lines = ["## Scale", ""]
    for one in series:
        points = ", ".join(f"{shown(x)}: {shown(y)}" for x, y in one.points)
        lines += [
            f"![{one.title}](performance/{one.name}.svg)",
            "",
            f"{one.title}: {one.shape}. {one.x}: {one.y}: {points}.",
            "",
        ]
    return "\n".join(lines)


def line(row: Row) -> str:
    """For a terminal; what is missed stands below it, in red."""
    others = ", ".join(f"{name} {shown(figure.median)}" for name, figure in row.peers.items())
    text = f"{row.what}: {_figure(row.ours, row.unit)}{f'  [{others}]' if others else ''}"
    return "\n".join([text, *(f"  \033[31mmissed: {miss}\033[0m" for miss in row.misses)])


def machine() -> str:
    """The kind of this machine, without anything that identifies it."""
    info = Path("/proc/cpuinfo").read_text()
    models = re.findall(r"^(?:model name|CPU part)\s*: (.+)$", info, re.MULTILINE)
    virtual = "virtual " if re.search(r"^flags.*\bhypervisor\b", info, re.MULTILINE) else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = f" ({models[0].split('@')[0].strip()})" if models else ""
    return f"{os.cpu_count()} {virtual}CPUs, {platform.machine()}{model}, {memory:.0f} GiB of memory"


def kernel() -> str:
    return re.match(r"[\d.]+", platform.release())[0]  # type: ignore[index]


def versions() -> str:
    """The versions of the other tools' packages, if dpkg knows them."""
    packages = ("bpfcc-tools", "libbpf-tools", "bpftrace", "linux-perf", "fio", "iperf3")
    command = ["dpkg-query", "--showformat", "${Package} ${Version}\n", "--show", *packages]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return "unknown versions"
    return ", ".join(line for line in told.splitlines() if line.count(" ") == 1 and not line.endswith(" "))
