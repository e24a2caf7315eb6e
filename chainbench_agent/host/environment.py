"""The environment of a run: the machine and the software versions that its numbers depend on."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

VERSION = version("chainbench-agent")
"""The version of this program."""

CPUINFO = Path("/proc/cpuinfo")
GOVERNORS = Path("/sys/devices/system/cpu/cpufreq")


def environment(details: Mapping[str, str]) -> dict[str, Any]:
    """The values by name: `kernel`, `architecture`, `cpus`, `cpu_model`, `governor`, `bcc` and `agent`.

    `details` are those of the collector's status.  A value that is not known is in `unavailable`, with the reason.
    """
    found = {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
        "cpu_model": _cpu_model(),
        "governor": _governor(),
        "bcc": details.get("bcc", ""),
        "agent": VERSION,
    }
    reasons = {
        "cpu_model": f"{CPUINFO} does not name it",
        "governor": "this machine has no cpufreq driver",
        "bcc": "nothing was measured with it",
    }
    missing = {name: reasons[name] for name, value in found.items() if not value}
    known = {name: value for name, value in found.items() if value}
    return {**known, **({"unavailable": missing} if missing else {})}


def _cpu_model() -> str:
    model = re.search(r"^model name\s*:\s*(.+)$", _read(CPUINFO), re.MULTILINE)
    return model[1] if model else ""


def _governor() -> str:
    """The frequency governors of all CPUs, each once, with commas between them."""
    return ",".join(sorted({_read(path).strip() for path in GOVERNORS.glob("policy*/scaling_governor")} - {""}))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
