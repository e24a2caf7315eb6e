"""Whether this machine is emulated: then everything takes twenty times as long, and times prove nothing."""

from pathlib import Path

EMULATED = "TCG" in Path("/proc/cpuinfo").read_text()

SCALE = 10 if EMULATED else 1
"""By this, what would take too long there is done less often."""
