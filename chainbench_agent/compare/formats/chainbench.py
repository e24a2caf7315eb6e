"""The paired evidence that readers of report.json expect, from the two runs at the median of their sides.

All numbers are of really measured runs, which `runs` names: their counts are whole.  Histograms have the same slots on
both sides, powers of two, because readers join them by index.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from chainbench_agent.compare.build import Compared
from chainbench_agent.compare.model import Comparison
from chainbench_agent.compare.rendering import Format
from chainbench_agent.evidence.distribution import section_to_json
from chainbench_agent.evidence.model import Evidence

HISTOGRAMS = ("runqlat", "biolatency")
SYSCALLS = ("futex", "fsync", "openat", "read", "write")
MOST_ENTRIES = 10

Pair = tuple[Evidence, Evidence]


def render(compared: Compared) -> str:
    pair = compared.baseline, compared.optimized
    sections = {name: _histograms(name, pair) for name in HISTOGRAMS if _have(name, pair)}
    if _have("offcpu", pair):
        sections["offcpu"] = _offcpu(pair)
    if _have("exec", pair):
        sections["exec"] = _exec(pair)
    if _have("syscall_counts", pair):
        sections["syscall_counts"] = _syscalls(pair)
    document = {"available": all(one.available for one in pair), **sections, **_summary(compared.comparison, pair)}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _have(section: str, pair: Pair) -> bool:
    return all(section in evidence.sections for evidence in pair)


def _summary(comparison: Comparison, pair: Pair) -> dict[str, Any]:
    """`gain_pct` is positive for faster, `change_pct` negative: readers of either find what they expect."""
    change = comparison.change
    numbers = {} if change is None else {"gain_pct": -change.pct, "change_pct": change.pct}
    bounds = (
        {"gain_low_pct": -change.high_pct, "gain_high_pct": -change.low_pct}
        if change and change.low_pct is not None and change.high_pct is not None
        else {}
    )
    runs = {"baseline": pair[0].run.id, "optimized": pair[1].run.id}
    return {"verdict": comparison.verdict, "sentence": comparison.sentence, **numbers, **bounds, "runs": runs}


def _histograms(section: str, pair: Pair) -> dict[str, Any]:
    found = [section_to_json(evidence.sections[section]) for evidence in pair]
    merged = [_by_power_of_two(one.get("histogram", ())) for one in found]
    powers = {power for side in merged for power in side}
    slots = range(min(powers), max(powers) + 1) if powers else range(0)
    hists = [[{"bucket_us": 2**power / 1e3, "count": side.get(power, 0)} for power in slots] for side in merged]
    p95 = [one.get("p95_us", 0.0) for one in found]
    return _sides("hist", hists) | _sides("us", p95, before="p95_")


def _by_power_of_two(histogram: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Exponent of the upper bound in ns → count; the fine slots never cross a power of two."""
    merged: dict[int, int] = {}
    for slot in histogram:
        power = (round(slot["bucket_us"] * 1e3) - 1).bit_length()
        merged[power] = merged.get(power, 0) + slot["count"]
    return merged


def _offcpu(pair: Pair) -> dict[str, Any]:
    sections = [evidence.sections["offcpu"] for evidence in pair]
    reasons = [
        [{"reason": reason["reason"], "ms": reason["ms"]} for reason in section.get("top_reasons", ())[:MOST_ENTRIES]]
        for section in sections
    ]
    return _sides("total_ms", [section.get("total_ms", 0.0) for section in sections]) | _sides("top_reasons", reasons)


def _exec(pair: Pair) -> dict[str, Any]:
    sections = [evidence.sections["exec"] for evidence in pair]
    commands = [section.get("top_commands", [])[:MOST_ENTRIES] for section in sections]
    counts = [section.get("exec_count", 0) for section in sections]
    return _sides("exec_count", counts) | _sides("top_commands", commands)


def _syscalls(pair: Pair) -> dict[str, Any]:
    counts = [evidence.sections["syscall_counts"] for evidence in pair]
    return dict(
        zip(("baseline", "optimized"), [{call: side.get(call, 0) for call in SYSCALLS} for side in counts], strict=True)
    )


def _sides(name: str, values: Sequence[Any], before: str = "") -> dict[str, Any]:
    return {f"{before}baseline_{name}": values[0], f"{before}optimized_{name}": values[1]}


FORMAT = Format("chainbench", "application/json", "paired evidence, as in report.json", render)
