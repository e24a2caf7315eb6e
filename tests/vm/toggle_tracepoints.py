"""Has the kernel patch its own code beneath running threads, as attaching to a tracepoint does.

    .venv/bin/python tests/vm/guest.py 6.12 -- python tests/vm/toggle_tracepoints.py 60

An emulator that cannot do this makes the guest panic or lock up: docs/decisions/0009-guests-in-one-thread.md.
"""

import subprocess
import sys
import time
from pathlib import Path

EVENTS = Path("/sys/kernel/tracing/events")
PING_PONG = """
import os
(r, w), (a, b) = os.pipe(), os.pipe()
if os.fork():
    while True: os.write(w, b"x"); os.read(a, 1)
while True: os.read(r, 1); os.write(b, b"x")
"""


def toggle(seconds: float) -> int:
    """Switch the events of the scheduler and of system calls on and off; the answer is how often."""
    times, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for word in ("1", "0"):
            for group in ("sched", "raw_syscalls"):
                (EVENTS / group / "enable").write_text(word)
        times += 1
    return times


def main(seconds: float) -> None:
    loads = [subprocess.Popen([sys.executable, "-c", PING_PONG], start_new_session=True) for _ in range(3)]
    try:
        sys.stdout.write(f"switched on and off {toggle(seconds)} times\n")
    finally:
        for load in loads:
            subprocess.run(["pkill", "-KILL", "-s", str(load.pid)], check=False)
            load.wait()


if __name__ == "__main__":
    main(float(sys.argv[1]))
