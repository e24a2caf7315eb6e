"""Waits until a process sleeps."""

import time
from pathlib import Path


def until_asleep(pid):
    """Returns when the process waits for its input and has left its CPU, with the number of times that it did so."""
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.01)
    time.sleep(0.1)
    lines = (line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    status = {name: value for name, value, *_ in lines}
    return int(status["voluntary_ctxt_switches"]), int(status["nonvoluntary_ctxt_switches"])
