"""Time for which a CPU quota stopped threads, compared with the kernel's own counters of the cgroups.

The truth is read by the target itself, in the cpu.stat of the cgroups, while it runs: nothing of it is throttled then.
"""

import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from chainbench_agent.evidence.model import Target
from chainbench_agent.kernel.targets.cpu_quotas import cpu_mount
from chainbench_agent.model.run_request import RunRequest

pytestmark = pytest.mark.bpf

_, HOME = cpu_mount()
READ = (
    f"HOME = {str(HOME)!r}\n"
    """
import os, sys, time
def stat(group):
    with open(f"{group}/cpu.stat") as file: found = dict(map(str.split, file))
    throttled_ns = int(found.get("throttled_usec", 0)) * 1000 or int(found.get("throttled_time", 0))
    return int(found["nr_throttled"]), throttled_ns / 1e6
def join(group):
    with open(f"{group}/cgroup.procs", "w") as file: file.write(str(os.getpid()))
def show(*groups): print(*(number for group in groups for number in stat(group)), flush=True)
def end(*groups):  # elsewhere: what Python and the kernel do at its end may be throttled
    join(HOME)
    show(*groups)
def spin(seconds, clock=time.process_time):
    end = clock() + seconds
    while clock() < end: pass
"""
)


def stat(group):
    """(nr_throttled, ms) from cpu.stat, for the target's code."""
    space = {}
    exec(READ, space)  # noqa: S102 - the same lines as in the target
    return space["stat"](group)


class Quotas:
    """Cgroups below the one that the CPU controller begins with, each with a quota or without."""

    def __init__(self):
        self.root = HOME
        self.v2 = not (self.root / "cpu.cfs_quota_us").exists() and not (self.root / "cpu.shares").exists()
        self.made = []

    def make(self, path, limit=None):
        """`limit`: (quota, period) in µs."""
        group = self.root / path
        if self.v2:
            (group.parent / "cgroup.subtree_control").write_text("+cpu")
        group.mkdir()
        self.made.append(group)
        if limit:
            self.limit(group, *limit)
        return group

    def limit(self, group, quota_us, period_us=None):
        """`None` removes the quota."""
        if self.v2:
            period = "" if period_us is None else f" {period_us}"
            (group / "cpu.max").write_text(f"{'max' if quota_us is None else quota_us}{period}")
            return
        if period_us is not None:
            (group / "cpu.cfs_period_us").write_text(str(period_us))
        (group / "cpu.cfs_quota_us").write_text(str(-1 if quota_us is None else quota_us))

    def close(self):
        for group in reversed(self.made):
            for _ in range(100):
                try:
                    group.rmdir()
                    break
                except OSError:  # who was in it is on the way out
                    time.sleep(0.05)


def local_ms(group):
    """How long the group could not run because of any quota, summed over the CPUs (since v6.6)."""
    found = dict(line.split() for line in (group / "cpu.stat.local").read_text().splitlines())
    return int(found.get("throttled_usec", 0)) / 1e3 or int(found.get("throttled_time", 0)) / 1e6


@pytest.fixture
def quotas():
    quotas = Quotas()
    yield quotas
    quotas.close()


def throttled_ms(evidence):
    """The throttled time in the ledger and in offcpu, which must be equal."""
    blocked = {category["category"]: category["ms"] for category in evidence["ledger"]["blocked"]}
    found = blocked.get("throttled", 0)
    assert found == pytest.approx(evidence["offcpu"]["throttled_ms"], abs=1e-3)
    return found


def grown(one):
    """How a target that says `show` before and `end` behind its work saw its groups grow: [[events, ms], …]."""
    before, after = (list(map(float, line.split())) for line in one.output.splitlines())
    differences = [b - a for a, b in zip(before, after, strict=True)]
    return [differences[i : i + 2] for i in range(0, len(differences), 2)]


def seen(attempt):
    """The result of `attempt(number)`, with the evidence first, of a run in which the machine has shown every switch.

    See docs/decisions/0003.  Each attempt has cgroups of its own, so that it has the whole quota.
    """
    for number in range(6):
        found = attempt(number)
        if "unseen_switches" not in found[0]["loss"]["causes"]:
            break
    return found


def as_the_kernel_says(ms):
    """Compares with the kernel; `edges`: throttling before the first reading and after the last."""
    return pytest.approx(ms, rel=0.03, abs=5)


def test_a_quota_of_the_parent_throttles_the_target(targeted, quotas):
    """As a pod's quota throttles its container.  The time is not a wait in the run queue."""

    def attempt(number):
        pod = quotas.make(f"chainbench-pod-{number}", (10_000, 100_000))
        inside = quotas.make(f"chainbench-pod-{number}/container")
        one = targeted(f"show({str(pod)!r})\njoin({str(inside)!r})\nspin(0.08)\nend({str(pod)!r})", READ)
        return one.run(), grown(one)

    evidence, ((events, ms),) = seen(attempt)

    assert events >= 5
    assert throttled_ms(evidence) == as_the_kernel_says(ms)
    assert evidence["cpu"]["throttled_ms"] == as_the_kernel_says(ms)
    assert events <= evidence["cpu"]["throttle_events"] <= events + 1
    assert evidence["runqlat"]["sum_us"] / 1000 == pytest.approx(evidence["ledger"]["runnable_ms"], abs=1)


def test_a_thread_that_two_quotas_stop_is_throttled_once(targeted, quotas):
    """Both quotas count."""

    def attempt(number):
        outer = quotas.make(f"chainbench-outer-{number}", (8_000, 100_000))
        inner = quotas.make(f"chainbench-outer-{number}/inner", (1_000, 20_000))
        other = quotas.make(f"chainbench-outer-{number}/other")
        both = f"{str(outer)!r}, {str(inner)!r}"
        code = f"""show({both})
if child := os.fork(): join({str(inner)!r})
else: join({str(other)!r})
spin(0.06)
if not child:
    join(HOME)
    os._exit(0)
os.wait()
end({both})
"""
        one = targeted(code, READ)
        evidence = one.run()
        local = [local_ms(group) for group in (inner, other) if (group / "cpu.stat.local").exists()]
        return evidence, grown(one), local

    evidence, ((above, above_ms), (own, own_ms)), local = seen(attempt)

    assert above >= 3
    assert own >= 3
    assert above + own <= evidence["cpu"]["throttle_events"] <= above + own + 2
    assert evidence["cpu"]["throttled_ms"] == as_the_kernel_says(above_ms + own_ms)
    found = throttled_ms(evidence)
    assert own_ms * 0.97 - 5 <= found <= (2 * above_ms + own_ms) * 1.03 + 5
    if local:  # the time in which either stopped it
        assert found == as_the_kernel_says(sum(local))


def test_the_time_of_two_threads_under_one_quota_is_their_sum(targeted, quotas):
    """Each is on a CPU of its own."""

    def attempt(number):
        group = quotas.make(f"chainbench-two-{number}", (5_000, 50_000))
        code = f"""show({str(group)!r})
join({str(group)!r})
child = os.fork()
os.sched_setaffinity(0, {{0 if child else 1}})
spin(0.06)
if not child:
    join(HOME)
    os._exit(0)
os.wait()
end({str(group)!r})
"""
        one = targeted(code, READ)
        return one.run(), grown(one)

    evidence, ((events, ms),) = seen(attempt)

    assert events >= 3
    assert throttled_ms(evidence) == pytest.approx(ms, rel=0.1, abs=15)
    assert events <= evidence["cpu"]["throttle_events"] <= events + 2


@contextmanager
def spinner_in(group):
    """Another process that uses up a group's quota again and again."""
    code = f"{READ}\njoin({str(group)!r})\nspin(600, time.monotonic)"
    with subprocess.Popen([sys.executable, "-c", code]) as spinner:
        while stat(group)[0] < 3:
            time.sleep(0.05)
        yield
        spinner.kill()


def test_the_quota_of_another_cgroup_does_not_count(targeted, quotas):
    """Throttling elsewhere on the machine does not count for the target."""
    other = quotas.make("chainbench-elsewhere", (5_000, 50_000))
    with spinner_in(other):
        before = stat(other)
        evidence = targeted("import time\ntime.sleep(0.5)").run()
        assert stat(other)[0] >= before[0] + 3

    assert (evidence["cpu"]["throttle_events"], evidence["cpu"]["throttled_ms"]) == (0, 0)
    assert throttled_ms(evidence) == 0


def test_a_cgroup_counts_from_when_the_target_enters_it(targeted, quotas):
    """It counts until the end of the run, although the target leaves it before."""
    group = quotas.make("chainbench-shared", (10_000, 50_000))
    with spinner_in(group):
        shown = f"show({str(group)!r})"
        code = f"time.sleep(0.5)\n{shown}\njoin({str(group)!r})\n{shown}\nspin(0.05)\n{shown}\nend({str(group)!r})"
        one = targeted(code, READ)
        evidence = one.run()
        ended = stat(group)[0]

    before, first, last, left = (int(line.split()[0]) for line in one.output.splitlines())
    assert last - first >= 3
    assert left - first - 1 <= evidence["cpu"]["throttle_events"] <= ended - before + 1


def test_nothing_is_throttled_after_a_quota_was_removed(targeted, quotas):
    """The time before remains."""

    def attempt(number):
        group = quotas.make(f"chainbench-lifted-{number}", (5_000, 50_000))
        own = repr(str(group))
        file, none = ("cpu.max", "max") if quotas.v2 else ("cpu.cfs_quota_us", "-1")
        lift = f"with open('{group}/{file}', 'w') as file: file.write('{none}')"
        one = targeted(f"show({own})\njoin({own})\nspin(0.05)\n{lift}\nshow({own})\nspin(0.2)", READ)
        return one.run(), grown(one)

    evidence, ((events, ms),) = seen(attempt)

    assert events >= 5
    assert throttled_ms(evidence) == as_the_kernel_says(ms)
    assert evidence["cpu"]["throttled_ms"] == as_the_kernel_says(ms)


def test_a_throttled_thread_that_is_moved_out_is_throttled_until_then(collector, run, quotas):
    """And not until its old cgroup may run again, a second later."""
    group = quotas.make("chainbench-left", (2_000, 1_000_000))
    code = f"{READ}\nprint(flush=True)\nsys.stdin.readline()\njoin({str(group)!r})\nspin(0.1)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
        began = time.monotonic()
        process.stdin.write(b"\n")
        process.stdin.flush()
        while str(process.pid) not in (group / "cgroup.procs").read_text().split():
            time.sleep(0.01)
        time.sleep(0.5)
        (quotas.root / "cgroup.procs").write_text(str(process.pid))
        until_moved_ms = 1000 * (time.monotonic() - began)
        process.wait()
        collector.stop()

    evidence = collector.evidence(run).as_json()
    assert 250 <= throttled_ms(evidence) <= until_moved_ms


def test_the_kernels_run_queue_time_includes_throttling(collector, run, quotas):
    """The cross-check's note says so."""
    group = quotas.make("chainbench-living", (5_000, 50_000))
    code = f"{READ}\njoin({str(group)!r})\nspin(600, time.monotonic)"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        while stat(group)[0] < 2:
            time.sleep(0.05)
        collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
        time.sleep(0.5)
        collector.stop()
        evidence = collector.evidence(run).as_json()
        process.kill()

    check = evidence["cross_check"]["ledger.runnable_ms"]
    assert f"also counts the {throttled_ms(evidence)} ms" in check["note"]
    assert check["kernel"] >= throttled_ms(evidence) - 50  # it is counted when the thread is on a CPU again
    assert evidence["cross_check"]["offcpu.throttled_ms"]["kernel"] == evidence["cpu"]["throttled_ms"]


def test_a_target_throttled_for_all_of_the_run_is_unexplained(collector, run, quotas):
    """There is no switch, and the kernel counts the throttling later."""
    group = quotas.make("chainbench-test-starved", (1000, 1_000_000))
    code = READ + f"join({str(group)!r})\nprint(flush=True)\nspin(1000)\n"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        for _ in range(20):  # a run that lies between two turns
            time.sleep(0.1)
            before = schedstat(process.pid)
            collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
            time.sleep(0.2)
            collector.stop()
            if schedstat(process.pid) == before:
                break
        process.kill()

    ledger = collector.evidence(run).as_json()["ledger"]
    assert ledger["wall_ms"] >= 200
    assert ledger["runnable_ms"] == 0
    assert ledger["unexplained_ms"] == pytest.approx(ledger["wall_ms"], abs=1e-3)


def schedstat(pid):
    """On-CPU time, time in run queues, turns."""
    return Path(f"/proc/{pid}/schedstat").read_text()
