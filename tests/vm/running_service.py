"""The installed service under systemd; runs in a guest (test_service.py), in this order.

Everything is asked of systemd, of the agent's own API, or of the kernel.  Each start takes a guest
a quarter of a minute or more, and the first one minutes: there are as few as there can be.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest
from the_service import (
    CONFIG,
    DROP_INS,
    LABELS,
    LONG_S,
    PROBES,
    UNIT,
    agent,
    journal,
    measured,
    show,
    systemctl,
    until,
)

from chainbench_agent.client import Agent

SOCKET = "/run/chainbench-agent/socket"
CAPABILITIES = 1 << 34 | 1 << 38 | 1 << 39
"""CAP_SYSLOG, CAP_PERFMON, CAP_BPF."""
WATCHDOG_S = 30
"""Three minutes would be too long for a test."""
ASK = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
try: s.connect(sys.argv[1])
except OSError as error: sys.exit(error.strerror)
s.sendall(b"GET /status HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
print(s.makefile().readline().split()[1])
"""


def processes():
    """The processes in the control group of the service."""
    return list(map(int, Path(f"/sys/fs/cgroup{show('ControlGroup')}/cgroup.procs").read_text().split()))


def our_programs():
    listed = subprocess.run(["bpftool", "prog", "show"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"name cb_\w+", listed)


def test_enabled_and_started_means_that_it_serves():
    """`systemctl enable --now` returns when a request is answered, and not before; the service has its own user."""
    CONFIG.write_text(PROBES)
    systemctl("enable", "--now", UNIT)

    assert systemctl("is-enabled", UNIT) == "enabled\n"
    assert agent().status()["backend"] == "ebpf", journal()
    assert (show("ActiveState"), show("NRestarts")) == ("active", "0")
    for pid in processes():
        text = Path(f"/proc/{pid}/status").read_text()
        assert int(re.search(r"^Uid:\s+(\d+)", text, re.MULTILINE)[1]) > 60_000  # where systemd makes users up
        assert int(re.search(r"^CapEff:\s+(\w+)", text, re.MULTILINE)[1], 16) == CAPABILITIES


def test_it_measures_as_that_user():
    """A known workload, exactly; waits have the names of functions."""
    evidence = measured()

    assert evidence["source"] == "ebpf"
    assert next(c["count"] for c in evidence["exec"]["top_commands"] if c["command"] == "true") == 53
    assert any(found["reason"] in ("kernel_wait4", "do_wait") for found in evidence["offcpu"]["top_reasons"])
    assert "bpf_stats_enabled" in evidence["unavailable"]["cost"]
    modules = agent().status()["modules"].values()
    assert {module["state"] for module in modules} <= {"up", "degraded", "off"}


def test_its_directories_are_its_own():
    cache, state = Path("/var/cache/chainbench-agent"), Path("/var/lib/chainbench-agent")

    assert list(cache.resolve().glob("*/structs.txt"))
    assert (state.resolve() / "runs.sqlite3").exists()
    assert state.resolve().stat().st_mode & 0o777 == 0o700
    assert not [line for line in journal().splitlines() if "denied" in line.lower()]


def test_a_reload_takes_over_the_configuration():
    """Without a restart, and without a moment in which nobody listens."""
    main, worker = show("MainPID"), agent().status()["agent"]["pid"]
    CONFIG.write_text(f'machine = "reloaded"\n{PROBES}')
    systemctl("reload", UNIT)
    until(lambda: agent().status()["machine"] == "reloaded")
    until(lambda: show("ActiveState") == "active")

    assert show("MainPID") == main
    assert agent().status()["agent"]["pid"] != worker
    assert show("NRestarts") == "0"


def test_a_worker_that_dies_is_replaced():
    dead = agent().status()["agent"]["pid"]
    subprocess.run(["kill", "-9", str(dead)], check=True)
    until(lambda: agent().status()["agent"]["pid"] != dead)

    assert show("NRestarts") == "0"
    assert measured()["exec"]["exec_count"] >= 53


def test_a_master_that_dies_is_restarted_by_systemd():
    """Its worker goes with it, and with that every program in the kernel."""
    before = set(processes())
    subprocess.run(["kill", "-9", show("MainPID")], check=True)
    until(lambda: show("NRestarts") == "1" and show("ActiveState") == "active")

    assert not before & set(processes())
    assert measured()["exec"]["exec_count"] >= 53


def test_a_stop_in_the_middle_of_a_run_keeps_its_evidence():
    """Success, not a failure; nothing of ours stays in the kernel."""
    run_id = agent().start(LABELS)["run_id"]
    subprocess.run(["/bin/true"], check=True)
    assert our_programs()
    systemctl("stop", UNIT)

    assert (show("ActiveState"), show("Result")) == ("inactive", "success")
    line = next(line for line in journal().splitlines() if "ended with the shutdown: {" in line)
    evidence = json.loads(line[line.index("{") :])
    assert (evidence["run"]["id"], evidence["run"]["ended_by"]) == (run_id, "shutdown")
    assert evidence["exec"]["exec_count"] >= 1
    assert our_programs() == []


def test_what_cannot_start_says_why_and_is_not_tried_again():
    CONFIG.write_text("sample_interval = 0\n")
    failed = subprocess.run(["systemctl", "start", UNIT], capture_output=True, text=True, timeout=LONG_S, check=False)

    assert failed.returncode != 0
    assert show("ActiveState") == "failed"
    assert "sample_interval" in journal()


def ask_as(uid, gid):
    """The status that a user gets at the socket, or the error."""
    who = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    done = subprocess.run([*who, "/usr/bin/python3", "-c", ASK, SOCKET], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()


def worker_by_the_socket():
    return Agent(f"unix:{SOCKET}", timeout=LONG_S).status()["agent"]["pid"]


def test_a_group_has_a_socket():
    """As the unit says how: its members may ask, and nobody else."""
    CONFIG.write_text('backend = "mock"\n')
    subprocess.run(["groupadd", "--system", "benchmarks"], check=True)
    DROP_INS.mkdir(parents=True)
    (DROP_INS / "test.conf").write_text(
        f"[Service]\nGroup=benchmarks\nWatchdogSec={WATCHDOG_S}\n"
        f"Environment=CHAINBENCH_HOST=unix:{SOCKET} CHAINBENCH_SOCKET_GROUP=benchmarks\n"
    )
    systemctl("daemon-reload")
    systemctl("start", UNIT)

    assert ask_as(65534, "benchmarks") == "200"
    assert ask_as(65534, "nogroup") == "Permission denied"


def test_a_worker_that_hangs_is_restarted_by_the_watchdog():
    worker, restarts = worker_by_the_socket(), int(show("NRestarts"))
    subprocess.run(["kill", "-STOP", str(worker)], check=True)
    until(lambda: int(show("NRestarts")) == restarts + 1 and show("ActiveState") == "active")

    assert worker_by_the_socket() != worker


if __name__ == "__main__":
    page = str(Path(__file__).with_name("following_the_page.py"))
    status = pytest.main(
        [__file__, page, "-v", "--timeout=900", "--durations=0", "--junitxml=/results/junit.xml", "-pno:cacheprovider"]
    )
    shown = ["journalctl", "--no-pager", "--output=short-monotonic"]
    Path("/results/journal").write_bytes(subprocess.run(shown, capture_output=True, check=False).stdout)
    raise SystemExit(status)
