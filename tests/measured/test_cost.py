"""The cost of measuring: the kernel's account of our programs, and the effect on a workload."""

import json
import statistics
import subprocess
import sys

import pytest

from chainbench_agent.kernel.targets.kernel_target import KernelTarget
from chainbench_agent.model.run_request import RunRequest

pytestmark = pytest.mark.bpf

ROUNDS = range(15, 101)
"""At least, and at most."""


def test_the_cost_is_what_the_kernel_says(collector):
    """Between two samples each program ran as often as bpftool says it did between two looks inside of them."""
    machine = collector._machine
    machine.attach(KernelTarget())
    machine.begin()
    first, before = machine.sample(), programs()
    subprocess.run(["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=20000", "status=none"], check=True)
    after, last = programs(), machine.sample()
    machine.end()
    machine.detach()

    runs, ns = (last.programs["sys_enter"].runs - first.programs["sys_enter"].runs,
                last.programs["sys_enter"].ns - first.programs["sys_enter"].ns)  # fmt: skip
    ours = [pid for pid in before if after[pid]["run_cnt"] - before[pid]["run_cnt"] >= 40_000]
    assert ours
    grown = [
        (after[i]["run_cnt"] - before[i]["run_cnt"], after[i]["run_time_ns"] - before[i]["run_time_ns"]) for i in ours
    ]
    assert any(0.5 * runs <= count <= runs and 0.5 * ns <= time_ns <= ns for count, time_ns in grown)


def programs():
    listed = subprocess.run(["bpftool", "-j", "prog", "show"], capture_output=True, text=True, check=True)
    ours = [p for p in json.loads(listed.stdout) if p.get("name", "").startswith("cb_sys_enter")]
    return {p["id"]: {"run_cnt": 0, "run_time_ns": 0} | p for p in ours}


def test_the_targets_part(targeted):
    """100,000 calls are their part of all that were watched; what the target paid has bounds, entries included."""
    evidence = targeted("for _ in range(100_000): os.getppid()", "import os").run()

    cost, calls = evidence["cost"], evidence["syscall_counts"]["total"]
    runs = {program["hook"]: program["runs"] for program in cost["programs"]}
    assert calls >= 100_000
    assert cost["target_shares"]["sys_enter"] == pytest.approx(calls / runs["sys_enter"], abs=0.0001)
    assert 0 < cost["target_cpu_percent_at_least"] <= cost["target_cpu_percent"] <= cost["target_cpu_percent_at_most"]
    own_ns = sum(cost["target_shares"].get(program["hook"], 0) * program["ns"] for program in cost["programs"])
    assert cost["target_cpu_percent_at_least"] > 100 * own_ns / (evidence["cpu"]["on_cpu_ms"] * 1e6)
    assert cost["entry_ns"] >= cost["entry_ns_per_event"] * calls


CALLS = """
import os, sys, time
for n in map(int, sys.stdin):
    began = time.process_time_ns()
    for _ in range(n): os.getppid()
    print((time.process_time_ns() - began) / n, flush=True)
"""
PING_PONG = """
import os, sys, time
os.sched_setaffinity(0, {0})
there, back = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    os.close(there[1])
    while os.read(there[0], 1): os.write(back[1], b"x")
    os._exit(0)
def cpu_ns(): return time.process_time_ns() + time.clock_gettime_ns(~child << 3 | 2)  # clock_getcpuclockid(3)
for n in map(int, sys.stdin):
    began = cpu_ns()
    for _ in range(n): os.write(there[1], b"x"); os.read(back[0], 1)
    print((cpu_ns() - began) / n, flush=True)
"""
WORKLOADS = {
    "calls": (CALLS, 100_000, ("sys_enter", "sys_exit")),
    "ping-pong": (PING_PONG, 10_000, ("sched_switch", "sched_wakeup", "sys_enter", "sys_exit")),
}
"""Code, operations in a round, and the hooks that each operation passes."""


class Worker:
    """A process that runs a round of operations on demand, and reports the CPU time of one of them."""

    def __init__(self, name):
        code, self.operations, self.hooks = WORKLOADS[name]
        command = [sys.executable, "-c", code]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.round()

    def round(self):
        self.process.stdin.write(f"{self.operations}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def watched(self, cost):
        """Hook → ns: the cost of the events of one operation, by the account of the programs."""
        return sum(cost[hook] for hook in self.hooks) / self.operations


@pytest.fixture(params=WORKLOADS)
def worker(request):
    worker = Worker(request.param)
    yield worker
    worker.process.communicate(timeout=60)


def unwatched(worker):
    return worker.round(), 0.0


def refused(collector, worker):
    """The programs are attached, and turn back at once, because no run is on."""
    machine = collector._machine
    machine.attach(KernelTarget())
    first = machine.programs.runs()
    ns = worker.round()
    last = machine.programs.runs()
    machine.detach()
    return ns, worker.watched({hook: last[hook].ns - first[hook].ns for hook in worker.hooks})


def counted(collector, run, worker):
    """A run is on; the account is the evidence's."""
    collector.start(RunRequest())
    ns = worker.round()
    collector.stop()
    cost = collector.evidence(run).as_json()["cost"]
    return ns, worker.watched({program["hook"]: program["ns"] for program in cost["programs"]})


def interval(values):
    """Where the median lies, with 99 %: two of the values, by their rank, whatever their distribution."""
    rank = max(int(len(values) / 2 - 2.58 * len(values) ** 0.5 / 2), 0)
    return sorted(values)[rank], sorted(values)[-1 - rank]


@pytest.mark.portable  # an emulated processor has no caches, and its time is not ours
def test_what_the_workload_feels(collector, run, worker):
    """An operation takes longer by the time that the `cost` section gives for its events.

    Calling a program at all costs the workload time that no statistics of programs show: a system call takes the
    kernel's slow path, a tracepoint is no jump over any more, and the statistics themselves read the clock twice.  So
    the workload is compared not only with nobody watching, but with the same programs, attached, that turn back at
    once.  Then all of that is on both sides, and our handlers remain: measured, it is the difference of CPU time;
    reported, the difference of the account.  Each round has all three, so that a slow moment of the machine slows all.

    The rounds' own spread says how exactly it can be felt; they go on until that is within a quarter.  A quarter is
    left to what the handlers do to the workload's caches.
    """
    felt, told, all_felt, all_told = [], [], [], []
    for rounds in range(1, ROUNDS.stop):
        nobody, off, on = unwatched(worker), refused(collector, worker), counted(collector, run, worker)
        felt.append(on[0] - off[0])
        told.append(on[1] - off[1])
        all_felt.append(on[0] - nobody[0])
        all_told.append(on[1])
        least, most = interval(felt)
        if rounds >= ROUNDS.start and most - least <= 0.5 * statistics.median(told):
            break

    in_all = statistics.median(all_told)
    message = f"felt {least:.0f} to {most:.0f} ns, told {statistics.median(told):.0f} ns, after {rounds} rounds"
    assert least <= 1.25 * statistics.median(told), message
    assert most >= 0.75 * statistics.median(told), message
    assert interval(all_felt)[1] >= in_all, f"felt {statistics.median(all_felt):.0f} ns, told {in_all:.0f} ns"
