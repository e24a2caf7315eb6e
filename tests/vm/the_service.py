"""Functions for running_service.py and following_the_page.py: systemd, the agent, the journal."""

import subprocess
import time
from pathlib import Path

from chainbench_agent.client import Agent

UNIT = "chainbench-agent.service"
DROP_INS = Path("/etc/systemd/system/chainbench-agent.service.d")
URL = "http://127.0.0.1:9090"
LABELS = dict.fromkeys(("scenario", "impl", "variant", "commit", "dataset"), "x")
CONFIG = Path("/etc/chainbench_agent.toml")
PROBES = 'probes = ["exec", "offcpu"]\n'
"""Modules that need each capability, and compile in a third of the time; compiled once, and then cached."""
LONG_S = 900
"""A guest compiles for minutes, and longer if other guests run."""
TOKEN = Path("/etc/chainbench-agent.token")


def systemctl(*arguments):
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=LONG_S, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stderr}\n{journal()[-5000:]}"
    return done.stdout


def show(name):
    return systemctl("show", "--property", name, "--value", UNIT).strip()


def journal(unit=UNIT):
    shown = ["journalctl", "--no-pager", "--output=cat", f"--unit={unit}"]
    return subprocess.run(shown, capture_output=True, text=True, check=True).stdout


def until(condition):
    """Its answer, as soon as that is something."""
    deadline = time.monotonic() + LONG_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never happened\n{show('ActiveState')}\n{journal()[-5000:]}"
        time.sleep(0.5)
    return found


def agent():
    """A client with the agent's token, once there is one."""
    return Agent(URL, token=TOKEN.read_text() if TOKEN.exists() else None, timeout=LONG_S)


def measured():
    """The evidence of a run with 53 programs in it."""
    with agent().collect(LABELS) as run:
        for _ in range(53):
            subprocess.run(["/bin/true"], check=True)
    return run.evidence
