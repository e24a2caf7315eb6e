"""Types the commands of docs/operations.md, from the start of the service to its removal, in a guest, in this order.

Only the blocks that need a network are left out: their packages are installed, and `make install` was staged.
"""

import contextlib
import json
import shlex
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
import requests
from operations_page import block
from the_service import (
    CONFIG,
    DROP_INS,
    LONG_S,
    PROBES,
    UNIT,
    URL,
    agent,
    journal,
    measured,
    show,
    systemctl,
    until,
)

from chainbench_agent.client import Agent, ProblemError

REPO = Path(__file__).parents[2]
PROMETHEUS_URL = "http://127.0.0.1:9091"
AS_ROOT = """
sudo() { case $1 in apt-get) ;; *) "$@" ;; esac; }
"""
TOKENS = {name: Path(f"/etc/chainbench-agent.{name}") for name in ("token", "read-token")}


def typed(text, **environment):
    """The output of commands that root types; a command that fails ends them, and the test."""
    command = ["script", "--quiet", "--return", "--command", f"bash -euc {shlex.quote(AS_ROOT + text)}", "/dev/null"]
    with_path = ["env", *(f"{name}={value}" for name, value in environment.items()), *command]
    done = subprocess.run(with_path, capture_output=True, text=True, cwd=REPO, timeout=LONG_S, check=False)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{journal()[-5000:]}\n{journal('prometheus.service')[-5000:]}"
    return done.stdout


def answer(shown):
    """The JSON that `curl` brought, after its progress."""
    return json.loads(shown[shown.index("{") : shown.rindex("}") + 1])


def scraped(query):
    """The value of the first series, where there is one."""
    try:
        found = requests.get(f"{PROMETHEUS_URL}/api/v1/query", {"query": query}, timeout=LONG_S)
    except requests.ConnectionError:  # it does not listen yet
        return None
    series = found.json()["data"]["result"] if found.ok else []
    return float(series[0]["value"][1]) if series else None


def test_the_service_is_started():
    """As it was after `make install`, with fewer modules."""
    systemctl("stop", UNIT)
    shutil.rmtree(DROP_INS, ignore_errors=True)
    CONFIG.write_text(PROBES)
    systemctl("daemon-reload")
    _, enable_and_ask = block("enable --now").split("to do about the rest\n")

    shown = typed(enable_and_ask)

    assert answer(shown)["backend"] == "ebpf", shown


def test_debians_prometheus_scrapes_it():
    """Its own unit, which had started at the port that is taken; what a run measures arrives."""
    systemctl("start", "prometheus")
    shown = typed(block("apt-get install prometheus"))
    assert answer(shown)["status"] == "success"
    evidence = measured()
    until(lambda: scraped('up{job="chainbench"}') == 1)
    run = f'chainbench_exec_count_total{{scenario="x",source="ebpf"}} == {evidence["exec"]["exec_count"]}'

    assert until(lambda: scraped(run)) >= 53
    assert scraped('chainbench_agent_backend{backend="ebpf"}') == 1
    assert scraped("chainbench_agent_store_runs") >= 1
    rules = requests.get(f"{PROMETHEUS_URL}/api/v1/rules", timeout=LONG_S).json()["data"]["groups"]
    assert {rule["health"] for group in rules for rule in group["rules"]} <= {"ok", "unknown"}
    assert len(rules) >= 2


def test_tokens_are_handed_over(tmp_path):
    """Only root can read the files.  A client without a token is refused; the second token only reads."""
    lines = tmp_path / "lines"
    lines.write_text(block("LoadCredential=token"))
    editor = tmp_path / "editor"
    editor.write_text(
        f'#!/bin/sh\nfor file; do :; done\ncp {lines} "$file"\n'
    )  # before its name may be a line's number
    editor.chmod(0o755)

    typed(block("systemctl edit chainbench-agent"), SYSTEMD_EDITOR=editor)
    shown = typed(block("sudo cat /etc/chainbench-agent.token"))

    assert {file.stat().st_mode & 0o777 for file in TOKENS.values()} == {0o600}
    assert answer(shown)["backend"] == "ebpf"
    token, read_token = (file.read_text().strip() for file in TOKENS.values())
    with pytest.raises(ProblemError, match="GET /status: 401 "):
        Agent(URL, timeout=LONG_S).status()
    reader = Agent(URL, token=read_token, timeout=LONG_S)
    assert "chainbench_agent_info" in reader.metrics()
    with pytest.raises(ProblemError, match="POST /stop: 403 "):
        reader.stop()
    assert measured()["exec"]["exec_count"] >= 53
    assert token not in journal()
    assert read_token not in journal()


def test_prometheus_shows_its_token():
    """It is refused, until it has its copy."""
    until(lambda: scraped('up{job="chainbench"}') == 0)
    typed(block("systemctl reload prometheus"))

    assert until(lambda: scraped('up{job="chainbench"}') == 1)


def test_the_kernel_counts_for_the_service():
    """After which the evidence has its `cost`, which this user cannot have otherwise."""
    assert "cost" in measured()["unavailable"]
    typed(block("bpf_stats_enabled"))
    evidence = measured()

    assert "cost" not in evidence.get("unavailable", {})
    assert sum(program["runs"] for program in evidence["cost"]["programs"]) > 0
    assert until(lambda: scraped("sum(chainbench_agent_program_seconds_total)")) > 0


def test_a_backup_has_all_runs(tmp_path):
    """Made while the agent has the database open."""
    runs = tmp_path / "runs-backup.sqlite3"
    typed(block("runs-backup.sqlite3").replace("runs-backup.sqlite3", str(runs)))

    with contextlib.closing(sqlite3.connect(runs)) as backup:
        (kept,) = backup.execute("SELECT count(*) FROM runs").fetchone()
    assert kept == agent().status()["store"]["runs"] >= 1
    assert runs.stat().st_mode & 0o777 == 0o600


def test_all_of_it_goes():
    """The installed files and, by the page's other lines, those that were written since."""
    typed(block("make uninstall"))

    assert show("LoadState") == "not-found"
    found = ["find", "/etc", "/usr/local", "/var/cache", "/var/lib", "-name", "*chainbench-agent*"]
    left = subprocess.run(found, capture_output=True, text=True, check=True).stdout.split()
    assert left == ["/etc/prometheus/chainbench-agent.token"]
