"""Whether this machine is emulated: everything takes twenty times as long there, and time is not ours."""

from pathlib import Path

EMULATED = "TCG" in Path("/proc/cpuinfo").read_text()

SCALE = 10 if EMULATED else 1
"""By this, what would take too long there is done less often."""
