"""Entries of github-action-benchmark with its tool `customSmallerIsBetter`: one for each side."""

from __future__ import annotations

import json
from typing import Any

from chainbench_agent.compare.build import Compared
from chainbench_agent.compare.model import Side
from chainbench_agent.compare.phrases import side_name
from chainbench_agent.compare.rendering import Format


def render(compared: Compared) -> str:
    comparison = compared.comparison
    entries = [
        _entry("baseline", comparison.baseline, ""),
        _entry("optimized", comparison.optimized, comparison.sentence),
    ]
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"


def _entry(name: str, side: Side, extra: str) -> dict[str, Any]:
    spread = max(side.summary.max_ms - side.summary.typical_ms, side.summary.typical_ms - side.summary.min_ms)
    return {
        "name": f"{side_name(side)} ({name})",
        "unit": "ms",
        "value": side.summary.typical_ms,
        "range": f"± {spread:.3f}",
        "extra": extra,
    }


FORMAT = Format("gha-benchmark", "application/json", "for github-action-benchmark", render)
