"""A run collects what it was asked for: nothing else is attached, and sampled figures are as near as they say."""

import shutil
import subprocess
from pathlib import Path

import pytest

from chainbench_agent.catalog import Counter, Hook, Module, raw_tracepoint
from chainbench_agent.catalog.selection import EVERYTHING, Selection
from chainbench_agent.collector.ebpf import EbpfCollector
from chainbench_agent.evidence.model import Evidence, Target
from chainbench_agent.loading import unit_text
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.probes import DIRECTORY, HOOKS

pytestmark = pytest.mark.bpf

FOLLOWING = {"sched_process_fork", "sched_process_exit", "sched_process_exec", "cgroup_attach_task", "task_rename"}
CALLS = 100_000
FIXED = set(Evidence.model_fields) - {"sections"}


def attached():
    """The tracepoints that this process holds links to, by the kernel's own word."""
    found = set()
    for info in Path("/proc/self/fdinfo").iterdir():
        lines = info.read_text().splitlines() if info.exists() else ()
        found |= {line.split()[1] for line in lines if line.startswith("tp_name:")}
    return found


@pytest.mark.parametrize(
    ("probes", "tracepoints"),
    [
        ("exec", {*FOLLOWING, "sys_exit"}),
        ("syscalls", {*FOLLOWING, "sys_enter"}),
        ("syscalls:errors", {*FOLLOWING, "sys_enter", "sys_exit"}),
        ("runqlat", {*FOLLOWING, "sched_switch", "sched_wakeup", "sched_wakeup_new"}),
    ],
)
def test_only_what_was_chosen_is_attached(collector, probes, tracepoints):
    """The tracepoints of that module, and those by which processes are followed; nothing once the run has ended."""
    for target in (Target(), Target(kind="pid", pid=1)):
        collector.start(RunRequest(target=target, selection=Selection((probes,))))
        try:
            assert attached() == tracepoints
        finally:
            collector.stop()
        assert attached() == set()


def test_the_evidence_has_one_section(collector, run, python):
    """It is exact although other modules are loaded, and the cost is that of the attached programs."""
    collector.start(RunRequest(selection=Selection(("exec",))))
    python("import subprocess\nfor _ in range(53): subprocess.run(['/bin/true'])")
    collector.stop()
    evidence = collector.evidence(run).as_json()

    assert evidence.keys() - FIXED == {"exec"}
    assert {"command": "true", "count": 53} in evidence["exec"]["top_commands"]
    assert {program["hook"] for program in evidence["cost"]["programs"]} == {*FOLLOWING, "sys_exit"}
    assert evidence["unavailable"] == {}
    assert evidence["loss"]["total"] == 0


def test_idle_modules_count_nothing_in_programs_that_they_share(collector, python):
    """Runqlat needs the switches; cpu and offcpu, which look at them too, stay as they were."""
    collector.start(RunRequest(selection=Selection(("runqlat",))))
    python("import time\nfor _ in range(101): time.sleep(0.001)")
    collector.stop()
    first, last = collector._first.modules, collector._last.modules

    assert last["runqlat"]["wait_ns"] > first["runqlat"]["wait_ns"]
    assert [last[name] for name in ("cpu", "offcpu", "exec")] == [first[name] for name in ("cpu", "offcpu", "exec")]


def test_a_target_without_its_switches(targeted, noise):
    """Counts and processes are complete though no switch is watched; where the time went is absent, with a reason."""
    del noise
    code = (
        "import os, subprocess, threading\nfor _ in range(1009): os.getppid()\n"
        "for _ in range(53): subprocess.run(['/bin/true'])\n"
        "for _ in range(19): t = threading.Thread(target=int); t.start(); t.join()"
    )
    one = targeted(code)
    evidence = one.run(selection=Selection(("exec", "syscalls")))

    assert evidence["syscall_counts"]["getppid"] == 1009
    assert evidence["exec"]["exec_count"] == evidence["exec"]["forks"] == 53
    assert (evidence["target"]["processes_seen"], evidence["target"]["threads_seen"]) == (54, 54 + 19)
    (top,) = (p for p in evidence["syscall_counts"]["top_processes"] if p["pid"] == one.process.pid)
    assert 1009 < top["total"] < evidence["syscall_counts"]["total"]
    assert "ledger" not in evidence
    assert "offcpu" in evidence["unavailable"]["ledger"]
    assert evidence["cross_check"] == {}


def test_one_in_ten(targeted):
    """An estimate of 100,000 calls is within five of the reported errors; nothing is lost, not each is recorded."""
    code = f"import os\nfor _ in range({CALLS}): os.getppid()"
    every = targeted(code).run(selection=Selection(("syscalls",)))
    tenth = targeted(code).run(selection=Selection(("syscalls",), 10))

    sampling = tenth["syscall_counts"]["sampling"]
    assert every["syscall_counts"]["getppid"] == CALLS
    assert "sampling" not in every["syscall_counts"]
    assert (sampling["interval"], sampling["zero_means_below"]) == (10, 29)
    assert 900 < sampling["standard_error"]["getppid"] < 1000  # √(9 · 100,000) = 949
    for name in ("getppid", "total"):
        off = tenth["syscall_counts"][name] - every["syscall_counts"][name]
        assert 0 < abs(off) <= 5 * sampling["standard_error"][name]
    assert tenth["syscall_counts"]["getppid"] % 10 == 0
    assert tenth["loss"]["total"] == every["loss"]["total"] == 0


def test_the_next_run_counts_every_event_again(collector, targeted):
    """The selection of a run does not affect the next one."""
    collector.start(RunRequest(selection=Selection(("exec",), 10_000)))
    collector.stop()
    evidence = targeted("import os\nfor _ in range(1009): os.getppid()").run(selection=EVERYTHING)

    assert evidence["syscall_counts"]["getppid"] == 1009
    assert {"ledger", "cpu", "runqlat", "biolatency"} <= evidence.keys()


@pytest.fixture
def wakes(tmp_path, monkeypatch):
    """A module with an option: it counts forks, and, where that is asked for, wake-ups."""
    probes = shutil.copytree(DIRECTORY, tmp_path / "probes")
    (probes / "wakes.c").write_text(
        "static __always_inline void wakes_on_sched_process_fork(struct cb_event *ev, struct cb_wakes *wakes,\n"
        "struct task_struct *parent, struct task_struct *child)\n{\n\twakes->forks++;\n}\n"
        "static __always_inline void wakes_on_waking(struct cb_event *ev, struct cb_wakes *wakes,\n"
        "struct task_struct *task)\n{\n\twakes->wakes++;\n}\n"
    )
    monkeypatch.setattr(unit_text, "DIRECTORY", probes)
    metrics = (
        Counter(name="forks", help="Forks.", hooks=("sched_process_fork",)),
        Counter(name="wakes", help="Wake-ups.", hooks=("waking",)),
    )
    return Module(name="wakes", question="?", metrics=metrics, options=("all",))


WAKING = Hook("waking", ("struct task_struct *task",), (raw_tracepoint("sched_waking"),), option="wakes:all")


@pytest.mark.parametrize("loaded", [(), ("wakes:all",)], ids=["not loaded", "loaded"])
def test_an_option(wakes, cache_dir, run, loaded):
    """It is loaded only if a setting names it, attached only if the run selects it, and never reported as 0."""
    collector = EbpfCollector([wakes], [*HOOKS, WAKING], cache_dir, loaded)
    assert ("waking" in collector._machine.programs.chosen) == bool(loaded)
    found = {}
    for probes in (("wakes",), ("wakes", "wakes:all")):
        collector.start(RunRequest(selection=Selection(probes)))
        assert ("sched_waking" in attached()) == (probes[1:] == loaded != ())
        subprocess.run(["sleep", "0.05"], check=True)
        collector.stop()
        found[probes] = collector.evidence(run).sections["wakes"]
    collector.close()

    assert all(section["forks"] >= 1 for section in found.values())
    without, asked = found.values()
    assert "wakes" not in without
    assert "wakes:all" in without["unavailable"]["wakes"]
    assert (asked.get("wakes", 0) > 0) == ("wakes" not in asked.get("unavailable", {})) == bool(loaded)
