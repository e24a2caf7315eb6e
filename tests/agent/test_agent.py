"""The whole agent as an operator uses it: a process, a port, a signal."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from daemon import LABELS, Served
from prometheus_client.parser import text_string_to_metric_families

NOBODY = 65534
UNIT = Path(__file__).parents[2] / "systemd/chainbench-agent.service"
UNPRIVILEGED = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
FSYNCS = """
import os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
for _ in range(23):
    os.write(fd, b"x")
    os.fsync(fd)
"""


def serve(directory, prefix=()):
    return Served(directory, prefix=prefix, header_cache=directory / "headers").start()


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """One agent for all tests that leave it as they found it."""
    agent = serve(tmp_path_factory.mktemp("agent"))
    yield agent
    assert agent.end() == 0


@pytest.fixture
def mocking(tmp_path):
    """An agent that may not use BPF."""
    tmp_path.chmod(0o777)
    for directory in tmp_path.parents:
        if directory.stat().st_uid == os.geteuid() and str(directory) != "/":
            directory.chmod(directory.stat().st_mode | 0o755)
    agent = serve(tmp_path, UNPRIVILEGED if os.geteuid() == 0 else ())
    yield agent
    agent.process.kill()
    agent.process.wait()


def round_trip(agent, tmp_path):
    """Does what a benchmark runner does: start, a known workload, stop."""
    started = agent.client.start(**LABELS)
    dd = ["dd", "if=/dev/zero", f"of={tmp_path}/dd", "bs=1M", "count=8", "conv=fsync", "status=none"]
    subprocess.run(dd, check=True)
    subprocess.run([sys.executable, "-c", FSYNCS, tmp_path / "fsyncs"], check=True)
    for _ in range(53):
        subprocess.run(["/bin/true"], check=True)
    return started, agent.client.stop()


@pytest.mark.portable
@pytest.mark.bpf
def test_a_measured_round_trip(agent, tmp_path):
    """Start, dd with fsync, 23 fsyncs, 53 programs, stop: all six sections, measured, each with its sources."""
    started, evidence = round_trip(agent, tmp_path)

    assert started["status"] == "started"
    assert evidence["available"] is True
    assert evidence["source"] == "ebpf"
    assert evidence["run"]["id"] == started["run_id"]
    assert LABELS.items() <= evidence["run"].items()
    assert evidence["exec"]["exec_count"] >= 53
    assert any(c["command"] == "true" and c["count"] >= 53 for c in evidence["exec"]["top_commands"])
    assert evidence["syscall_counts"]["fsync"] >= 24
    assert evidence["offcpu"]["total_ms"] > 0
    assert {"reason", "ms"} <= set(evidence["offcpu"]["top_reasons"][0])
    assert evidence["cpu"]["context_switches"] > 53
    for name in ("runqlat", "biolatency"):
        counts = [slot["count"] for slot in evidence[name]["histogram"]]
        assert sum(counts) == evidence[name]["count"] > 0
        assert evidence[name]["p95_us"] > 0
    for name in ("runqlat", "biolatency", "offcpu", "exec", "syscall_counts", "cpu"):
        assert all(re.match("raw_tracepoint:", source) for source in evidence[name]["sources"].values()), name
    assert evidence["cost"]["events"] > 0
    assert evidence["cost"]["ns_per_event"] > 0
    assert "total" in evidence["loss"]


@pytest.mark.needs("promtool")
@pytest.mark.portable
@pytest.mark.bpf
def test_what_prometheus_sees_is_the_same_run(agent, tmp_path):
    """The counters and buckets of /metrics are those of the evidence."""
    _, evidence = round_trip(agent, tmp_path)

    text = agent.client.metrics()
    labels = ",".join(
        f'{k}="{v}"' for k, v in sorted({**LABELS, "machine": socket.gethostname(), "source": "ebpf"}.items())
    )
    assert f"chainbench_exec_count_total{{{labels}}} {evidence['exec']['exec_count']:.1f}" in text
    assert f"chainbench_runqlat_microseconds_count{{{labels}}} {evidence['runqlat']['count']:.1f}" in text
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    given = ("chainbench_runqlat_", "chainbench_biolatency_micro", "chainbench_offcpu_milli", "chainbench_duration_")
    complaints = [line for line in checked.stderr.splitlines() if not line.startswith(given)]
    assert complaints == []


def health(agent):
    """(name without prefix, its labels) → value, of chainbench_agent_*."""
    return {
        (sample.name.removeprefix("chainbench_agent_"), frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(agent.client.metrics())
        for sample in family.samples
        if sample.name.startswith("chainbench_agent_")
    }


@pytest.mark.portable
@pytest.mark.bpf
def test_the_agents_own_account_grows_by_each_run(agent):
    """By the evidence's cost and loss, and not only when the run is over; both processes are measured."""
    before = health(agent)
    agent.client.start(**LABELS)
    subprocess.run(["/bin/true"], check=True)
    during = health(agent)
    evidence = agent.client.stop()
    after = health(agent)

    assert [found["run_active", frozenset()] for found in (before, during, after)] == [0, 1, 0]
    for program in evidence["cost"]["programs"]:
        key = "program_runs_total", frozenset({program["hook"], program["source"]})
        assert after[key] - before.get(key, 0) == program["runs"]
        assert before.get(key, 0) <= during[key] <= after[key]
    lost = sum(value for (name, _), value in after.items() if name == "lost_events_total")
    assert (
        lost - sum(value for (name, _), value in before.items() if name == "lost_events_total")
        == (evidence["loss"]["total"])
    )
    assert {role for name, role in after if name == "process_open_fds"} == {
        frozenset({"master"}),
        frozenset({"worker"}),
    }


@pytest.mark.portable
@pytest.mark.bpf
def test_no_compiler_stays_in_memory(agent):
    """No process of the agent has LLVM mapped, and each is an ordinary small process."""
    assert len(agent.processes()) == 2
    for pid in agent.processes():
        assert "LLVM" not in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.portable
@pytest.mark.bpf
def test_a_signal_in_the_middle_of_a_run(tmp_path):
    """The run is finished and its evidence logged; the process exits with 0, and no program of ours remains."""
    agent = serve(tmp_path)
    agent.client.start(**LABELS)
    subprocess.run(["/bin/true"], check=True)
    pids = agent.processes()

    assert agent.end() == 0

    logged = agent.log
    evidence = json.loads(logged[logged.index('{"schema_version"') :].splitlines()[0])
    assert evidence["run"]["ended_by"] == "shutdown"
    assert evidence["exec"]["exec_count"] >= 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.portable
@pytest.mark.bpf
def test_one_run_after_another(agent):
    """Ten runs in a row on one agent, each with its own numbers."""
    for number in range(1, 11):
        agent.client.start(**LABELS)
        for _ in range(number):
            subprocess.run(["/bin/true"], check=True)
        evidence = agent.client.stop()
        assert evidence["exec"]["top_commands"][0]["count"] in range(number, number + 3)


@pytest.fixture
def of_the_unit(tmp_path):
    """An agent with the capabilities of systemd/chainbench-agent.service, as a user who has no others."""
    given = re.search(r"^AmbientCapabilities=(.*)", UNIT.read_text(), re.MULTILINE)[1].split()
    some = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in given)])
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and str(directory) != "/":
            directory.chmod(directory.stat().st_mode | 0o755)
    tmp_path.chmod(0o777)
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    agent = serve(tmp_path, [*user, f"--bounding-set={some}", f"--inh-caps={some}", f"--ambient-caps={some}"])
    yield agent
    assert agent.end() == 0


@pytest.mark.other_user
@pytest.mark.bpf
def test_the_units_capabilities_are_enough(of_the_unit, tmp_path):
    """All that root measures, exactly, and functions by name; but for the cost, which says why it is not there."""
    of_the_unit.client.start(**LABELS, pid=os.getpid())
    subprocess.run([sys.executable, "-c", FSYNCS, tmp_path / "fsyncs"], check=True)
    for _ in range(53):
        subprocess.run(["/bin/true"], check=True)
    evidence = of_the_unit.client.stop()

    assert evidence["source"] == "ebpf"
    assert evidence["exec"]["exec_count"] == 54
    assert evidence["syscall_counts"]["fsync"] == 23
    functions = [found["reason"] for found in evidence["offcpu"]["top_reasons"]]
    assert any(
        re.fullmatch(r"do_wait|pipe_read|anon_pipe_read|do_nanosleep|futex_do_wait|io_schedule", f) for f in functions
    )
    states = {name: module["state"] for name, module in of_the_unit.client.status()["modules"].items()}
    assert "down" not in states.values()
    assert "cost" not in evidence
    assert "bpf_stats_enabled=1" in evidence["unavailable"]["cost"]


@pytest.mark.other_user
def test_without_privileges_it_says_so(mocking, tmp_path):
    """The same round trip, of made-up numbers that are marked in every place, and /status says why."""
    _, evidence = round_trip(mocking, tmp_path)

    assert evidence["available"] is False
    assert evidence["source"] == "mock"
    assert "capabilities" in evidence["reason"]
    for name in ("runqlat", "biolatency", "offcpu", "exec", "syscall_counts", "cpu"):
        assert set(evidence[name]["sources"].values()) == {"mock"}
    status = mocking.client.status()
    assert status["backend"] == "mock"
    assert "CAP_BPF" in status["remedy"]
    assert 'source="ebpf"' not in mocking.client.metrics()


@pytest.mark.other_user
def test_ebpf_or_nothing():
    """Asked for eBPF where it cannot be had, the agent ends with a sentence, not a traceback."""
    prefix = UNPRIVILEGED if os.geteuid() == 0 else []
    command = [*prefix, sys.executable, "-m", "chainbench_agent", "serve", "--port", "0", "--backend", "ebpf"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/", check=False)

    assert done.returncode != 0
    assert "eBPF cannot run here: capabilities" in done.stderr
    assert "Traceback" not in done.stderr
