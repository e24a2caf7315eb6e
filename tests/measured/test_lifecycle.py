"""Nothing is attached between runs, nothing wrong is ever loaded, nothing that fails takes the rest along."""

import errno
import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from chainbench_agent.catalog import Counter, Hook, Module, fentry, raw_tracepoint
from chainbench_agent.collector.ebpf import EbpfCollector
from chainbench_agent.errors import LayoutError, SetupError
from chainbench_agent.evidence.model import Target
from chainbench_agent.headers.btf import Btf
from chainbench_agent.kernel.machine import Machine
from chainbench_agent.kernel.targets.kernel_target import KernelTarget
from chainbench_agent.loading import compiler, unit_text
from chainbench_agent.loading.event_records import EventOptions
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.probes import CATALOG, DIRECTORY, HOOKS

pytestmark = pytest.mark.bpf

# Two modules compile faster than six, which counts under emulation.
TWO = [module for module in CATALOG if module.name in ("exec", "runqlat")]
WITH_PROCFS = [module for module in CATALOG if module.procfs]


def ours(kind):
    """The BPF objects of `kind` that the kernel has and that are named as ours are."""
    listed = subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, text=True, check=True)
    return {item["id"] for item in json.loads(listed.stdout) if item.get("name", "").startswith(("cb_", "kfunc__"))}


def gone(kind, before):
    """True once the kernel has let go of all that came after `before`; it does so in its own time."""
    return any(not (ours(kind) - before) or time.sleep(0.1) for _ in range(50))


def links():
    """Our own: the kernel says of each descriptor what it is."""
    return sum("link_type:" in path.read_text() for path in Path("/proc/self/fdinfo").iterdir() if path.exists())


def open_descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_attached_only_during_a_run(collector):
    """Links exist from start to stop; before and after, our programs do not run at all."""
    before = links()
    collector.start(RunRequest())
    during = links()
    collector.stop()

    machine = collector._machine
    kinds = [machine.programs.chosen[hook].kind for hook in machine.selected_hooks]
    linked = [kind for kind in kinds if kind in ("raw_tracepoint", "tp_btf", "fentry", "fexit")]
    assert during - before == len(linked)
    assert links() == before
    stats = Path("/proc/sys/kernel/bpf_stats_enabled")
    saved = stats.read_text()
    stats.write_text("1")
    try:
        runs = collector._machine.programs.runs()
        subprocess.run(["/bin/true"], check=True)
        assert collector._machine.programs.runs() == runs
    finally:
        stats.write_text(saved)


def test_closing_gives_everything_back(cache_dir):
    """Programs and maps are gone, and so are the descriptors."""
    programs, maps, descriptors = ours("prog"), ours("map"), open_descriptors()

    collector = EbpfCollector(TWO, HOOKS, cache_dir)
    assert len(ours("prog") - programs) == len(collector._machine.programs.chosen)
    collector.close()

    assert gone("prog", programs)
    assert gone("map", maps)
    assert open_descriptors() == descriptors


def out_of_memory(*_args, **_how):
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.mark.parametrize(
    "fails",
    [
        "bpf.libbpf.run_program",
        "bpf.kretprobes.remove_leftovers",
        "kernel.machine.Reader",
        "kernel.machine.Ring",
        "symbols.kernel_symbols.KernelSymbols.load",
        "collector.ebpf.proc_counters",
    ],
)
def test_a_load_that_fails_late_gives_everything_back(cache_dir, monkeypatch, fails):
    """An agent that continues with mock data has no program, map or descriptor open, whatever failed."""
    programs, maps, descriptors = ours("prog"), ours("map"), open_descriptors()
    monkeypatch.setattr(f"chainbench_agent.{fails}", out_of_memory)

    with pytest.raises(OSError, match="Cannot allocate memory"):
        EbpfCollector([*TWO, *WITH_PROCFS], HOOKS, cache_dir, events=EventOptions())

    assert open_descriptors() == descriptors
    assert gone("prog", programs)
    assert gone("map", maps)


def test_a_load_of_which_nothing_attaches_gives_everything_back(cache_dir, monkeypatch):
    """Not even the program that says who we are."""
    programs, maps, descriptors = ours("prog"), ours("map"), open_descriptors()
    monkeypatch.setattr("chainbench_agent.kernel.programs._try", out_of_memory)

    with pytest.raises(SetupError, match=r"no BPF program loads here: .* does not attach: Cannot allocate memory"):
        EbpfCollector(TWO, HOOKS, cache_dir)

    assert open_descriptors() == descriptors
    assert gone("prog", programs)
    assert gone("map", maps)


@pytest.mark.portable
def test_a_tree_with_one_wrong_offset_is_never_used(tmp_path):
    """Eight bytes slipped in before task_struct.pid: the error names the member, and nothing is loaded."""
    EbpfCollector(TWO, HOOKS, tmp_path).close()
    (header,) = tmp_path.glob("*/include/vmlinux.h")
    text = header.read_text()
    start = text.index("struct task_struct {")
    pid = re.compile(r"\n\tpid_t pid;").search(text, start)
    header.write_text(text[: pid.start()] + "\n\tlong slipped_in;" + text[pid.start() :])
    shutil.rmtree(header.parents[1] / "objects")  # what was proven with the right one
    programs = ours("prog")

    with pytest.raises(LayoutError, match=r"struct task_struct\.pid at \d+, BTF says \d+"):
        EbpfCollector(TWO, HOOKS, tmp_path)

    assert gone("prog", programs)


@pytest.mark.portable
def test_the_second_start_needs_no_compiler(tmp_path, monkeypatch, run):
    """Programs from a cached object count the same."""
    first = EbpfCollector(TWO, HOOKS, tmp_path)
    first.close()
    monkeypatch.setattr(compiler, "compile_unit", lambda _text: pytest.fail("it compiles"))

    second = EbpfCollector(TWO, HOOKS, tmp_path)
    with subprocess.Popen(["sh", "-c", "read go; for i in $(seq 53); do /bin/true; done"], stdin=subprocess.PIPE) as sh:
        second.start(RunRequest(target=Target(kind="pid", pid=sh.pid)))
        sh.communicate(b"\n")
    second.stop()
    evidence = second.evidence(run).as_json()
    second.close()

    assert second.status() == first.status()
    assert evidence["exec"]["exec_count"] == 53 + 1  # seq


@pytest.mark.portable
def test_a_module_that_does_not_compile_is_absent_with_clangs_reason(tmp_path, cache_dir, monkeypatch):
    """The others work on."""
    probes = shutil.copytree(DIRECTORY, tmp_path / "probes")
    with (probes / "exec.c").open("a") as broken:
        broken.write("\nstatic int exec_broken(void) { return no_such_thing; }\n")
    monkeypatch.setattr(unit_text, "DIRECTORY", probes)

    collector = EbpfCollector(TWO, HOOKS, cache_dir)
    states = {module.name: module for module in collector.status().modules}
    collector.close()

    assert states["exec"].state == "down"
    assert "no_such_thing" in states["exec"].reason
    assert states["runqlat"].state == "up"


def without(name):
    """The hooks, one of which this kernel lacks."""
    return [replace(h, sources=(raw_tracepoint("no_such_tracepoint"),)) if h.name == name else h for h in HOOKS]


@pytest.mark.portable
def test_a_missing_hook_costs_only_its_metrics(cache_dir):
    """Without block_rq_requeue there is nothing of block requests; files and the rest do not notice."""
    collector = EbpfCollector(CATALOG, without("block_rq_requeue"), cache_dir)
    states = {module.name: module for module in collector.status().modules}
    collector.close()

    assert states["biolatency"].state == "down"
    assert "no_such_tracepoint: this kernel has no such tracepoint" in states["biolatency"].reason
    assert states["io"].state == "degraded"
    assert {name for name, module in states.items() if module.state == "down"} == {"biolatency"}


def test_without_the_hook_that_gives_the_submitter(cache_dir, tmp_path, run):
    """Block I/O is not measured, of the whole machine neither: the evidence says why, and all others are there."""
    collector = EbpfCollector(CATALOG, without("block_bio_queue"), cache_dir)
    found = []
    for target in (Target(), Target(kind="pid", pid=os.getpid())):
        collector.start(RunRequest(target=target))
        subprocess.run(["dd", "if=/dev/zero", f"of={tmp_path}/x", "bs=4k", "count=7", "oflag=direct"], check=True)
        collector.stop()
        found.append(collector.evidence(run).as_json())
    collector.close()

    for evidence in found:
        assert "biolatency" not in evidence
        assert "no_such_tracepoint" in evidence["unavailable"]["biolatency"]
        assert evidence["syscall_counts"]["write"] >= 7


def test_the_first_source_that_loads_and_attaches_is_used(tmp_path, cache_dir, monkeypatch):
    """An fentry where the kernel allows it, else the tracepoint, and both count."""
    probes = shutil.copytree(DIRECTORY, tmp_path / "probes")
    (probes / "wakes.c").write_text(
        '#include "generated/wakes.h"\n\n'
        "static __always_inline void wakes_on_waking(struct cb_event *ev, struct cb_wakes *wakes,\n"
        "struct task_struct *task)\n{\n\twakes->wakes++;\n}\n"
    )
    monkeypatch.setattr(unit_text, "DIRECTORY", probes)
    sources = (
        fentry("no_such_function"),
        fentry("try_to_wake_up", 2),  # an int, not a task
        fentry("try_to_wake_up"),
        raw_tracepoint("sched_waking"),
    )
    hook = Hook("waking", ("struct task_struct *task",), sources)
    module = Module(name="wakes", question="?", metrics=(Counter(name="wakes", help="Wake-ups.", hooks=("waking",)),))

    machine = Machine([module], [*HOOKS, hook], cache_dir)
    machine.attach(KernelTarget())
    machine.begin()
    subprocess.run(["sleep", "0.05"], check=True)
    machine.end()
    counted = machine.sample().modules["wakes"]["wakes"]
    machine.detach()
    (source,) = machine.sources_of("waking", targeted=False)
    machine.close()

    btf = Btf.load()
    possible = ["raw_tracepoint:sched_waking"]
    if (btf.function_args("try_to_wake_up") or ("",))[0] == "struct task_struct *":
        possible.insert(0, "fentry:try_to_wake_up")
    assert source in possible
    assert counted > 0


def test_the_agents_place_on_the_stack_is_proven(collector):
    """The system call that the registers show is the one that was being made: names of waits can be trusted."""
    assert collector._machine.identity.called_bpf
