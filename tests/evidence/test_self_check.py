"""Each invariant holds in consistent evidence, and is reported when it does not hold."""

import copy
from datetime import UTC, datetime

import pytest

from chainbench_agent.evidence.model import Evidence, Loss, Run, Target
from chainbench_agent.evidence.self_check import INVARIANTS, Circumstances, self_check

RUN = Run(id="1", machine="host", started_at=datetime(2026, 1, 1, tzinfo=UTC), duration_ms=1000, ended_by="stop")
TARGET = Target(kind="pid", pid=7, processes_seen=1, threads_seen=2)
ENDED = Circumstances(cpus=2, run_ms=1000, reading_ms=0)

WAIT = {"category": "throttled", "ms": 100, "reasons": [{"reason": "CPU quota used up", "syscall": "", "ms": 100}]}
SLEEP = {"category": "sleep", "ms": 400, "reasons": [{"reason": "do_nanosleep", "syscall": "nanosleep", "ms": 400}]}


def line(tid, **changed):
    return {"tid": tid, "pid": 7, "command": "sh", "wall_ms": 1000, "on_cpu_ms": 400, "runnable_ms": 50} | {
        "blocked_ms": 500,
        "unexplained_ms": 50,
        "blocked": [SLEEP, WAIT],
        **changed,
    }


def distribution(**changed):
    found = {"histogram": [{"bucket_us": 5, "count": 2}, {"bucket_us": 9, "count": 1}], "count": 3, "sum_us": 15}
    return found | {"min_us": 2, "max_us": 9, "mean_us": 5, "p50_us": 4, "p95_us": 9, "p99_us": 9} | changed


SOUND = {
    "ledger": line(0, wall_ms=1500, blocked_ms=1000, blocked=[SLEEP | {"ms": 900, "reasons": [{"ms": 900}]}, WAIT])
    | {"threads": [line(7)], "threads_not_shown": 1},
    "cpu": {"on_cpu_ms": 400, "idle_ms": {"C1": 900}, "context_switches": 5, "voluntary_switches": 3}
    | {"throttled_ms": 0}
    | {"involuntary_switches": 2}
    | {"top_processes": [{"pid": 7, "command": "sh", "on_cpu_ms": 300}], "other_processes": {"on_cpu_ms": 100}},
    "offcpu": {"total_ms": 1050, "voluntary_ms": 930, "involuntary_ms": 120, "blocked_ms": 900, "runnable_ms": 50}
    | {"throttled_ms": 100, "idle_threads_ms": 40},
    "locks": {"futex_waits": 3, "futex_waited_ms": 0.015, "futex_wait_us": distribution(), "futex_idle_waits": 1},
    "runqlat": distribution(),
}


def checked(found, circumstances=ENDED, target=TARGET, lost=0, causes=()):
    found = copy.deepcopy(found)
    ledger = found.pop("ledger", None)
    evidence = Evidence(
        available=True,
        source="ebpf",
        run=RUN,
        target=target,
        sections=found,
        ledger=ledger,
        loss=Loss(total=lost, causes=dict.fromkeys(causes, 1)),
    )
    return self_check(evidence, circumstances)


def changed(path, value):
    """SOUND with another value at a path like "cpu.on_cpu_ms"."""
    found = copy.deepcopy(SOUND)
    *keys, last = (int(key) if key.isdigit() else key for key in path.split("."))
    place = found
    for key in keys:
        place = place[key]
    place[last] = value
    return found


def test_what_is_sound_has_no_violations():
    found = checked(SOUND)

    assert found.violations == []
    assert found.checked == 36


@pytest.mark.parametrize(
    ("path", "value", "invariant"),
    [
        ("ledger.on_cpu_ms", 2010, "on_cpu_within_cpus"),
        ("cpu.idle_ms", {"C1": 1700}, "on_cpu_within_cpus"),
        ("ledger.on_cpu_ms", 402, "on_cpu"),
        ("cpu.on_cpu_ms", 398, "on_cpu"),
        ("ledger.runnable_ms", 55, "runnable"),
        ("ledger.blocked_ms", 1005, "blocked"),
        ("offcpu.throttled_ms", 103, "throttled"),
        ("offcpu.throttled_ms", 4001, "throttled_by_groups"),
        ("ledger.unexplained_ms", -3, "unexplained"),
        ("ledger.threads.0.unexplained_ms", -3, "unexplained"),
        ("ledger.threads.0.blocked.0.reasons.0.ms", 390, "reasons"),
        ("ledger.wall_ms", 2005, "wall"),
        ("ledger.threads_not_shown", 2, "threads"),
        ("ledger.threads_not_shown", 0, "threads"),
        ("offcpu.total_ms", 1060, "off_cpu"),
        ("cpu.context_switches", 6, "switches"),
        ("runqlat.count", 4, "distribution"),
        ("runqlat.mean_us", 10, "distribution"),
        ("runqlat.p50_us", 9.5, "distribution"),
        ("locks.futex_wait_us.min_us", 6, "distribution"),
        ("locks.futex_waits", 4, "counted_twice"),
        ("locks.futex_waited_ms", 2, "counted_twice"),
        ("offcpu.idle_threads_ms", 1060, "part_of_whole"),
        ("locks.futex_idle_waits", 4, "part_of_whole"),
        ("cpu.other_processes.on_cpu_ms", -2, "part_of_whole"),
    ],
)
def test_what_does_not_fit_is_reported(path, value, invariant):
    """A violation names the invariant, both numbers, the tolerance, and what was compared."""
    violations = [one for one in checked(changed(path, value)).violations if one.invariant == invariant]

    assert violations
    for one in violations:
        assert abs(one.left - one.right) > one.tolerance
        assert one.note.endswith(INVARIANTS[invariant])


def test_idle_time_may_overlap_after_an_unseen_switch():
    """The CPU was idle already while the thread was still taken to be on it; on-CPU time by itself is still checked."""
    idle, busy = changed("cpu.idle_ms", {"C1": 1700}), changed("cpu.on_cpu_ms", 2010)

    def found(evidence):
        return {one.invariant for one in checked(evidence, lost=1, causes=["unseen_switches"]).violations}

    assert "on_cpu_within_cpus" not in found(idle)
    assert "on_cpu_within_cpus" in found(busy)


def test_more_processes_than_the_target_had():
    found = changed("ledger.threads", [line(7), line(8, pid=8)])

    assert [one.invariant for one in checked(found).violations] == ["threads", "processes"]


def test_a_run_that_goes_on_is_read_while_it_grows():
    """Later figures may be higher by the reading's time on each CPU; numbers of threads are not compared."""
    found = changed("cpu.on_cpu_ms", 409)
    reading = Circumstances(cpus=2, run_ms=1000, reading_ms=5)

    assert checked(found, reading).violations == []
    assert [one.invariant for one in checked(found).violations] == ["on_cpu"]
    assert checked(changed("ledger.threads_not_shown", 3), reading).violations == []


def test_what_was_lost_may_be_missing_on_one_side():
    """The number of threads may differ by the number of events that were lost."""
    found = changed("ledger.threads_not_shown", 3)

    assert [one.invariant for one in checked(found, lost=1).violations] == ["threads"]
    assert checked(found, lost=2).violations == []


def test_what_is_not_there_is_not_compared():
    """A module that does not collect, a metric that is unavailable, a machine without a ledger."""
    assert checked({}, target=Target()).checked == 0
    assert checked({"cpu": {"context_switches": 3}, "offcpu": {"total_ms": 1}}, target=Target()).checked == 0


@pytest.mark.parametrize(("by_groups_ms", "violations"), [(0, 1), (500, 1), (501, 0)])
def test_threads_are_throttled_by_cgroups(by_groups_ms, violations):
    """Two threads: each as long as the cgroups at most, and one more period on each of two CPUs."""
    found = checked({"cpu": {"throttled_ms": by_groups_ms}, "offcpu": {"throttled_ms": 5001}})

    assert [violation.invariant for violation in found.violations] == ["throttled_by_groups"] * violations


def test_throttled_threads_that_share_a_record():
    """One may have the time of another: nothing is compared."""
    evidence = Evidence(
        available=True,
        source="ebpf",
        run=RUN,
        target=TARGET,
        sections={"cpu": {"throttled_ms": 0}, "offcpu": {"throttled_ms": 9000}},
        loss=Loss(total=1, causes={"task_collisions": 1}),
    )

    assert self_check(evidence, ENDED).checked == 0
