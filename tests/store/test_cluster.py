"""The PostgreSQL of these tests ends with them, however they end."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

HOLD = """
import signal
import sys
from cluster import running
from packages import find

signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it, and so would we
with running(find("initdb")) as cluster:
    if "restarted" in sys.argv:
        cluster.stop()
        cluster.start()
    print(cluster.home, cluster.pid, flush=True)
    if "stopped" in sys.argv:
        cluster.stop()
    sys.stdin.read()
    raise AssertionError("a test fails")
"""


def is_at_work(pid):
    """One that has ended and that its parent did not ask about has a place in /proc, and no arguments any more."""
    arguments = Path("/proc", pid, "cmdline")
    return arguments.exists() and arguments.read_bytes() != b""


@pytest.mark.postgresql
@pytest.mark.usefixtures("initdb")
@pytest.mark.parametrize("server", ["started", "restarted", "stopped"])
@pytest.mark.parametrize("end", [None, signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=str)
def test_no_server_stays_behind(end, server):
    """Nor its files: when a test fails or is interrupted, and when nobody is left who could run a `finally`.

    The guard has our output as well, so that ends when all is done.
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, server],
        cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with holder:
        home, pid = holder.stdout.readline().split()
        assert is_at_work(pid) or server == "stopped"
        assert Path(home).exists()
        if end:
            holder.send_signal(end)
        else:
            holder.stdin.close()
        holder.stdout.read()

    assert holder.returncode != 0
    assert not is_at_work(pid)
    assert not Path(home).exists()
