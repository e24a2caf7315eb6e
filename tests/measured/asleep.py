"""Processes that shall wait before something begins."""

import time
from pathlib import Path


def until_asleep(pid):
    """Until it waits for its input, and has left its CPU; the answer is how often it did so far."""
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.01)
    time.sleep(0.1)
    lines = (line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    status = {name: value for name, value, *_ in lines}
    return int(status["voluntary_ctxt_switches"]), int(status["nonvoluntary_ctxt_switches"])
