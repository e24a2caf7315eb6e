"""The installed service under systemd; runs in a guest (test_service.py), in this order.

Everything is asked of systemd, of the agent's own API, or of the kernel.
"""

import json
import re
import subprocess
import time
from pathlib import Path

import pytest
import requests

UNIT = "chainbench-agent.service"
URL = "http://127.0.0.1:9090"
LABELS = dict.fromkeys(("scenario", "impl", "variant", "commit", "dataset"), "x")
CONFIG = Path("/etc/chainbench_agent.toml")
CAPABILITIES = 1 << 34 | 1 << 38 | 1 << 39
"""CAP_SYSLOG, CAP_PERFMON, CAP_BPF."""
LONG_S = 900
"""A guest compiles in minutes, the more of them beside it the slower."""


def systemctl(*arguments):
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=LONG_S, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stderr}\n{journal()[-5000:]}"
    return done.stdout


def show(name):
    return systemctl("show", "--property", name, "--value", UNIT).strip()


def journal():
    shown = ["journalctl", "--no-pager", "--output=cat", f"--unit={UNIT}"]
    return subprocess.run(shown, capture_output=True, text=True, check=True).stdout


def until(condition):
    """Its answer, as soon as that is something."""
    deadline = time.monotonic() + LONG_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never happened\n{show('ActiveState')}\n{journal()[-5000:]}"
        time.sleep(0.5)
    return found


def status():
    return requests.get(f"{URL}/status", timeout=LONG_S).json()


def post(path, **body):
    answer = requests.post(URL + path, json=body or None, timeout=LONG_S)
    assert answer.ok, answer.text
    return answer.json()


def processes():
    """Of the service, as the control group has them."""
    return list(map(int, Path(f"/sys/fs/cgroup{show('ControlGroup')}/cgroup.procs").read_text().split()))


def our_programs():
    listed = subprocess.run(["bpftool", "prog", "show"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"name cb_\w+", listed)


def measured():
    """The evidence of a run with 53 programs in it."""
    post("/start", **LABELS)
    for _ in range(53):
        subprocess.run(["/bin/true"], check=True)
    return post("/stop")


def test_started_means_that_it_serves():
    """`systemctl start` comes back when a request is answered, and not before; as a user of its own."""
    systemctl("start", UNIT)

    assert status()["backend"] == "ebpf", journal()
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
    assert any(found["reason"] == "do_wait" for found in evidence["offcpu"]["top_reasons"])
    assert "bpf_stats_enabled" in evidence["unavailable"]["cost"]
    modules = status()["modules"].values()
    assert {module["state"] for module in modules} <= {"up", "degraded", "off"}


def test_its_directories_are_its_own():
    cache = Path("/var/cache/chainbench-agent")

    assert list(cache.resolve().glob("*/structs.txt"))
    assert not [line for line in journal().splitlines() if "denied" in line.lower()]


def test_a_reload_takes_over_the_configuration():
    """Without a restart, and without a moment in which nobody listens."""
    main, worker = show("MainPID"), status()["agent"]["pid"]
    CONFIG.write_text('machine = "reloaded"\n')
    systemctl("reload", UNIT)
    until(lambda: status()["machine"] == "reloaded")
    until(lambda: show("ActiveState") == "active")

    assert show("MainPID") == main
    assert status()["agent"]["pid"] != worker
    assert show("NRestarts") == "0"


def test_a_worker_that_dies_is_replaced():
    dead = status()["agent"]["pid"]
    subprocess.run(["kill", "-9", str(dead)], check=True)
    until(lambda: status()["agent"]["pid"] != dead)

    assert show("NRestarts") == "0"
    assert measured()["exec"]["exec_count"] >= 53


def test_a_master_that_dies_is_restarted_by_systemd():
    """Its worker goes with it, and with that every program in the kernel."""
    before = set(processes())
    subprocess.run(["kill", "-9", show("MainPID")], check=True)
    until(lambda: show("NRestarts") == "1" and show("ActiveState") == "active")

    assert not before & set(processes())
    assert measured()["exec"]["exec_count"] >= 53


def test_a_worker_that_hangs_is_restarted_by_the_watchdog():
    worker = status()["agent"]["pid"]
    subprocess.run(["kill", "-STOP", str(worker)], check=True)
    until(lambda: show("NRestarts") == "2" and show("ActiveState") == "active")

    assert status()["agent"]["pid"] != worker


def test_a_stop_in_the_middle_of_a_run_keeps_its_evidence():
    """Success, not a failure; nothing of ours stays in the kernel."""
    run_id = post("/start", **LABELS)["run_id"]
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


if __name__ == "__main__":
    status = pytest.main([__file__, "-v", "--timeout=1800", "--junitxml=/results/junit.xml", "-pno:cacheprovider"])
    shown = ["journalctl", "--no-pager", "--output=short-monotonic"]
    Path("/results/journal").write_bytes(subprocess.run(shown, capture_output=True, check=False).stdout)
    raise SystemExit(status)
