"""Two samples make the evidence: nothing but their difference, with what it cost and what was lost."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from chainbench_agent.catalog import Counter, Derived, Distribution, HostNames, Keyed, Module, Names, Table
from chainbench_agent.evidence.build import NO_LEDGER, Method, build, difference, section
from chainbench_agent.evidence.cost import cost
from chainbench_agent.evidence.distribution import section_to_json
from chainbench_agent.evidence.model import Run, Target
from chainbench_agent.evidence.sample import (
    Account,
    LastWords,
    Members,
    OpenInterval,
    ProcThread,
    ProgramRun,
    Sample,
    Sleeper,
    TaskState,
    Thread,
)
from chainbench_agent.probes import CATALOG, HOOKS

RUN = Run(id="1", machine="host", started_at=datetime(2026, 1, 1, tzinfo=UTC), duration_ms=1000, ended_by="stop")
NAMES = Names(tables={"calls": {0: "read"}}, stacks={}, throttled_before={}, throttled_after={})
SECOND = 10**9

CONSUMERS_RELY_ON = {
    "runqlat": {"histogram", "p95_us"},
    "biolatency": {"histogram", "p95_us"},
    "offcpu": {"total_ms", "top_reasons"},
    "exec": {"exec_count", "top_commands"},
    "syscall_counts": {"futex", "fsync", "openat", "read", "write"},
    "cpu": {"context_switches", "cpu_migrations", "interrupts", "throttle_events"},
}
DISTRIBUTION = ["histogram", "count", "sum_us", "min_us", "max_us", "mean_us", "p50_us", "p95_us", "p99_us"]

MODULE = Module(
    name="locks",
    question="?",
    metrics=(
        Counter(name="waits", help=""),
        Counter(name="wait_ns", help=""),
        Table(name="by_kind_ns", help="", entries=4, names=HostNames("kinds"), label="kind"),
        Distribution(name="hold_ns", help=""),
        Counter(name="raw", help="", reported=False),
        Derived(name="ratio", help="", of=("raw",)),
        Derived(name="parts", help="", of=("raw",), inline=True),
    ),
    derive=lambda counts, _names: {"ratio": counts["raw"] / 3, "parts": {"one": 1, "two": 2}},
)


def method(modules=CATALOG, *, unavailable=None, absent=None, target=None, **how):
    return Method(
        modules=tuple(modules),
        sources={module.name: {"x": "raw_tracepoint:x"} for module in modules},
        unavailable={module.name: (unavailable or {}).get(module.name, {}) for module in modules},
        absent=absent or {},
        cpus=2,
        target=target or Target(),
        **{"program_sources": {}, **how},
    )


def counts_of_locks(counted, **given):
    return {"waits": 0, "wait_ns": 0, "by_kind_ns": (0,) * 4, "hold_ns": counted(), "raw": 0} | given


def built(first, last, **how):
    return build(RUN, method(**how), first, last, NAMES)


def test_counters_are_differences(sample):
    """Counts from before the run are not in its figures."""
    calls = (5,) + (0,) * 511
    first = sample(0, exec={"exec_count": 100, "forks": 7}, syscalls={"calls": calls})
    last = sample(SECOND, exec={"exec_count": 153, "forks": 7}, syscalls={"calls": (28, *calls[1:])})

    found = built(first, last).as_json()

    assert (found["exec"]["exec_count"], found["exec"]["forks"]) == (53, 0)
    assert found["syscall_counts"]["read"] == 23


def test_histograms_are_differences_and_extremes_are_the_runs(sample, counted):
    """The kernel keeps min and max for the present run only, so those of the last sample stand."""
    first = sample(0, runqlat={"latency_ns": counted(10, 1_000_000)})
    latency = replace(counted(10, 1_000_000, 2_000, 4_000), min=2_000, max=4_000)
    last = sample(SECOND, runqlat={"latency_ns": latency})

    found = difference(next(m for m in CATALOG if m.name == "runqlat"), first, last)["latency_ns"]

    assert found.sum == 6_000
    assert found.slots == counted(2_000, 4_000).slots
    assert (found.min, found.max) == (2_000, 4_000)


def test_hashes_are_taken_as_they_are(sample):
    """They are emptied between runs."""
    commands = {b"sh": (3).to_bytes(8, "little")}
    last = sample(SECOND, exec={"commands": commands})

    found = built(sample(0), last).as_json()

    assert found["exec"]["top_commands"] == [{"command": "sh", "count": 3}]


def test_what_is_open_is_added_before_anything_is_derived(sample):
    """A thread asleep at the end is in the totals too."""
    asleep = OpenInterval(TaskState.BLOCKED, SECOND // 2, 0, kernel_thread=False)

    found = built(sample(0), sample(SECOND, tasks=[asleep])).as_json()

    assert found["offcpu"]["total_ms"] == found["offcpu"]["blocked_ms"] == 500
    assert found["offcpu"]["top_reasons"][0]["syscall"] == "read"


def test_a_section(counted):
    """Every reported metric under its key and in its unit, in the order declared; raw material is not there."""
    counts = counts_of_locks(
        counted, waits=3, wait_ns=1_234_567_891, by_kind_ns=(0, 2_000_000, 0, 1), hold_ns=counted(3_000), raw=1
    )
    names = Names(tables={"kinds": {1: "mutex"}}, stacks={}, throttled_before={}, throttled_after={})

    found = section(MODULE, counts, names, {}, {"waits": "raw_tracepoint:x"})

    assert list(found) == ["waits", "wait_ms", "by_kind_ms", "hold_us", "ratio", "one", "two", "sources"]
    assert (found["waits"], found["wait_ms"]) == (3, 1234.567891)
    assert found["by_kind_ms"] == {"mutex": 2.0, "3": 0.000001}
    assert found["hold_us"] == counted(3_000)
    assert found["ratio"] == 0.333333
    assert found["sources"] == {"waits": "raw_tracepoint:x"}


def test_an_unavailable_metric_is_absent_with_its_reason(counted):
    """An unavailable metric, also a derived one, has its reason instead of a zero."""
    missing = {"waits": "no tracepoint", "ratio": "no fact", "hold_us": "no hook"}

    found = section(MODULE, counts_of_locks(counted), NAMES, missing, {})

    assert found["unavailable"] == missing
    assert missing.keys() & (found.keys() - {"unavailable"}) == set()
    assert found["wait_ms"] == 0


def test_a_derived_metric_may_have_no_value():
    """A metric that derive() leaves out has no key in the section, and that is no error."""
    shy = Module(
        name="shy",
        question="?",
        metrics=(Counter(name="waits", help=""), Derived(name="mean", help="", of=("waits",))),
        derive=lambda counts, _names: {"mean": 1 / counts["waits"]} if counts["waits"] else {},
    )

    assert "mean" not in section(shy, {"waits": 0}, NAMES, {}, {})
    assert section(shy, {"waits": 4}, NAMES, {}, {})["mean"] == 0.25


def test_the_main_distribution_is_the_section(counted):
    """`latency_ns` has no key of its own."""
    module = Module(name="m", question="?", metrics=(Distribution(name="latency_ns", help=""),))

    found = section(module, {"latency_ns": counted(5)}, NAMES, {}, {})

    assert list(section_to_json(found)) == [*DISTRIBUTION, "sources"]


def test_a_hash_is_not_reported_by_itself():
    """It has no form in JSON: the declaration is wrong, and says so."""
    keyed = Keyed(name="by_task", help="", key="u64", entries=8, when_full="")
    module = Module(name="m", question="?", metrics=(keyed,))

    with pytest.raises(TypeError, match="by_task: a Keyed is not reported by itself"):
        section(module, {"by_task": {}}, NAMES, {}, {})


def test_loss_by_cause(sample):
    """Differences, and what the kernel skipped because a program was under way; causes without a loss are left out."""
    programs = (
        {"a": ProgramRun(0, 0, 4), "b": ProgramRun(0, 0, 0)},
        {"a": ProgramRun(0, 0, 6), "b": ProgramRun(0, 0, 1)},
    )
    first = sample(0, loss={"keys_full": 5, "task_collisions": 2}, programs=programs[0])
    last = sample(SECOND, loss={"keys_full": 12, "task_collisions": 2}, programs=programs[1])

    found = built(first, last, program_sources={"a": "x", "b": "y"}).as_json()["loss"]

    skipped = {"a": {"events": 2, "metrics": []}, "b": {"events": 1, "metrics": []}}
    assert found == {"total": 10, "causes": {"keys_full": 7, "programs_skipped": 3}, "programs_skipped": skipped}


def test_no_loss_is_said(sample):
    """A zero that was counted."""
    assert built(sample(0), sample(SECOND)).as_json()["loss"] == {"total": 0, "causes": {}}


def test_cost(sample):
    """The share of all CPUs over the run: 20 ms of 2 x 1 s; the most expensive program is first."""
    first = sample(0, programs={"a": ProgramRun(100, 10, 0), "b": ProgramRun(0, 0, 0)})
    last = sample(SECOND, programs={"a": ProgramRun(5_000_100, 1010, 0), "b": ProgramRun(15_000_000, 1000, 0)})

    sources = {"a": "raw_tracepoint:a", "b": "raw_tracepoint:b"}
    modules = {"modules": (), "program_sources": sources}
    found = built(replace(first, modules={}), replace(last, modules={}), **modules).as_json()["cost"]

    assert found == {
        "cpu_percent": 1.0,
        "bpf_ns": 20_000_000,
        "events": 2000,
        "ns_per_event": 10_000.0,
        "programs": [
            {"hook": "b", "source": "raw_tracepoint:b", "runs": 1000, "ns": 15_000_000},
            {"hook": "a", "source": "raw_tracepoint:a", "runs": 1000, "ns": 5_000_000},
        ],
        "modules": {},
        "unavailable": dict.fromkeys(("entry_ns", "target_cpu_percent"), "it was not calibrated"),
    }


def test_a_cost_that_nobody_counted_is_absent_with_the_reason(sample):
    """It would read as zero."""
    found = built(sample(0), sample(SECOND), program_sources={"sys_enter": "raw_tracepoint:sys_enter"}, no_cost="why")

    assert found.cost is None
    assert found.unavailable["cost"] == "why"


def test_cost_by_module():
    """A module's cost is that of the programs only it uses and of those it shares, each counted once."""
    first = Sample(0, {}, programs=dict.fromkeys("abc", ProgramRun(7, 7, 0)))
    runs = {"a": (4_000_000, 400), "b": (1_000_000, 100), "c": (0, 0)}
    last = Sample(SECOND, {}, programs={hook: ProgramRun(ns + 7, n + 7, 0) for hook, (ns, n) in runs.items()})
    parts = {"one": frozenset("ab"), "other": frozenset("a"), "idle": frozenset("c"), "none": frozenset("z")}

    found = cost(dict.fromkeys("abc", "x"), parts, 2, first, last).model_dump()["modules"]

    keys = ("hooks", "events", "bpf_ns_alone", "bpf_ns_shared", "ns_per_event_at_most", "cpu_percent_at_most")
    assert {module: tuple(costs[key] for key in keys) for module, costs in found.items()} == {
        "one": (["a", "b"], 500, 1_000_000, 4_000_000, 10_000.0, 0.25),
        "other": (["a"], 400, 0, 4_000_000, 10_000.0, 0.2),
        "idle": (["c"], 0, 0, 0, 0.0, 0.0),
        "none": ([], 0, 0, 0, 0.0, 0.0),
    }


def test_parts_of_modules():
    """A raised hook has no program: it is in those that raise it."""
    found = method(raised_on={hook.name: hook.raised_on for hook in HOOKS if hook.raised_on}).parts

    assert found["runqlat"] == {"sched_switch", "sched_wakeup", "sched_wakeup_new"}
    assert found["syscalls"] == {"sys_enter", "call_returns"}
    assert all(hooks <= {hook.name for hook in HOOKS if hook.sources} for hooks in found.values())


def test_cost_of_nothing(sample):
    """No events and no time are no division by zero; no programs have no cost."""
    idle = {"a": ProgramRun(5, 5, 0)}
    found = built(sample(0, programs=idle), sample(0, programs=idle), program_sources={"a": "x"}).as_json()["cost"]

    assert (found["cpu_percent"], found["ns_per_event"]) == (0, 0)
    assert "cost" not in built(sample(0), sample(SECOND)).as_json()


def test_cross_checks(sample):
    """Compares our figures with the kernel's differences: tables are summed; forks are processes and threads."""
    kernel = {"on_cpu_ms": 1000, "idle_ms": 50, "context_switches": 70, "forks": 8}
    more = {"on_cpu_ms": 1510, "idle_ms": 1550, "context_switches": 101, "forks": 13}
    last = sample(
        SECOND,
        kernel=more,
        cpu={"on_cpu_ns": 500 * 10**6, "idle_ns": (10**9, 5 * 10**8) + (0,) * 14, "context_switches": 29},
        exec={"forks": 2, "threads_created": 3},
    )

    found = built(sample(0, kernel=kernel), last).as_json()["cross_check"]

    assert {name: (check["ebpf"], check["kernel"]) for name, check in found.items()} == {
        "cpu.on_cpu_ms": (500, 510),
        "cpu.idle_ms": (1500, 1500),
        "cpu.context_switches": (29, 31),
        "exec.forks": (5, 5),
    }
    assert all(check["from"].startswith("/proc/stat") for check in found.values())
    assert all("read a moment before the run and after it" in check["note"] for check in found.values())


def test_no_cross_check_of_what_was_not_measured(sample):
    """Neither of a metric that is absent, nor of one that the kernel does not keep."""
    kernel = {"context_switches": 1, "forks": 1}
    modules = [module for module in CATALOG if module.name != "exec"]
    first, last = sample(0, modules, kernel=kernel), sample(SECOND, modules, kernel=kernel)

    found = built(first, last, modules=modules, unavailable={"cpu": {"context_switches": "no hook"}})

    assert found.cross_check == {}


PROCESS = Target(kind="pid", pid=7)
CGROUP = Target(kind="cgroup", cgroup="/a.slice")


def running(tid, since_ns, **account):
    thread = Thread(tid, 7, "sh", since_ns)
    return OpenInterval(TaskState.RUNNING, since_ns, 0, kernel_thread=False, thread=thread, account=Account(**account))


def test_the_whole_machine_has_no_ledger(sample):
    """Nor does any metric of it need a scope."""
    found = built(sample(0), sample(SECOND)).as_json()

    assert found["target"] == {"kind": "machine"}
    assert "ledger" not in found
    assert [key for key, part in found.items() if isinstance(part, dict) and "scope" in part] == []


@pytest.mark.parametrize("target", [PROCESS, CGROUP])
def test_a_target_has_its_ledger_and_population(sample, target):
    """Counts those that were there at the beginning, those that came later, and those that never moved."""
    sleeper = Sleeper(Thread(9, 7, "sh", 0), 0, "", in_proc(state="S"))
    first = sample(0, members=Members(processes=100, threads=1000, seeds=2))
    ended = Members(ended_threads=30, processes=105, threads=1030, seeds=2, sleepers=(sleeper,))
    last = sample(SECOND, members=ended)

    found = built(first, last, target=target).as_json()

    seen = {"processes_seen": 7, "threads_seen": 31}
    assert found["target"] == target.model_dump(exclude_none=True) | seen
    assert found["ledger"]["wall_ms"] == 1000
    assert found["ledger"]["threads"][0]["tid"] == 9


def test_no_ledger_without_its_module(sample):
    """The ledger is what `offcpu` saw."""
    modules = [module for module in CATALOG if module.name != "offcpu"]

    found = built(sample(0, modules), sample(SECOND, modules), modules=modules, target=PROCESS)

    assert found.ledger is None


def test_what_belongs_to_a_cpu_is_named(sample):
    """With a target, `scope` lists the keys of metrics that are still those of the whole machine."""
    found = built(sample(0), sample(SECOND), target=PROCESS).as_json()

    assert found["cpu"]["scope"] == dict.fromkeys(
        ["interrupts", "device_interrupts", "vector_interrupts", "softirqs", "frequency_changes", "idle_ms"], "machine"
    )
    assert found["io"]["scope"] == {"queue_depth": "machine"}
    wide = [module.section_key for module in CATALOG if any(metric.machine_wide for metric in module.reported)]
    assert [key for key, part in found.items() if isinstance(part, dict) and "scope" in part] == wide


def test_kernel_threads_sleep_if_they_are_asked_about(sample):
    """As in BPF, their sleep is idleness for the whole machine, and blocked time in a target."""
    asleep = OpenInterval(TaskState.BLOCKED, SECOND // 2, 0, kernel_thread=True)
    first, last = sample(0), sample(SECOND, tasks=[asleep])

    assert built(first, last).sections["offcpu"]["blocked_ms"] == 0
    assert built(first, last, target=CGROUP).sections["offcpu"]["blocked_ms"] == 500


def in_proc(on_cpu_ns=0, runnable_ns=0, *, state="R", born_ns=-SECOND):
    """A thread as /proc has it, by its own account."""
    return ProcThread(7, "sh", 0, state, born_ns, born_ns, on_cpu_ns, runnable_ns, arrivals=1)


def test_a_target_is_checked_against_schedstat(sample):
    """The threads that both know at the end, each with its open interval; not the kernel's counters of everything."""
    kernel = {"context_switches": 1, "forks": 1}
    first = sample(SECOND, kernel=kernel, members=Members(proc_threads={1: in_proc(5_000_000, 1_000_000)}))
    tasks = [
        running(1, 2 * SECOND - 1_000_000, on_cpu_ns=2_000_000, runnable_ns=400_000),
        replace(running(2, 2 * SECOND - 500_000, on_cpu_ns=10_000_000), state=TaskState.PREEMPTED),
        replace(running(4, 0, on_cpu_ns=999), state=TaskState.BLOCKED),
    ]
    threads = {1: in_proc(8_100_000, 1_500_000), 2: in_proc(10_000_000, 600_000, born_ns=SECOND + 1)}
    last = sample(2 * SECOND, kernel=kernel, tasks=tasks, members=Members(proc_threads=threads))

    found = built(first, last, target=PROCESS).as_json()["cross_check"]

    assert {name: (check["ebpf"], check["kernel"]) for name, check in found.items()} == {
        "ledger.on_cpu_ms": (13.0, 13.1),
        "ledger.runnable_ms": (0.9, 1.1),
    }
    assert all(check["from"].startswith("/proc/PID/task/TID/schedstat") for check in found.values())
    assert all(check["note"] for check in found.values())


def test_no_schedstat_of_threads_that_joined(sample):
    """It begins with their birth; of those that are older than the run but were in the target then, it is known."""
    first = sample(SECOND, members=Members(proc_threads={1: in_proc(5_000_000)}))
    tasks = [replace(running(tid, SECOND, on_cpu_ns=1_000_000), state=TaskState.BLOCKED) for tid in (1, 2, 3)]
    threads = {1: in_proc(6_000_000), 2: in_proc(9_000_000), 3: in_proc(1_000_000, born_ns=SECOND + 1)}
    last = sample(2 * SECOND, tasks=tasks, members=Members(proc_threads=threads))

    check = built(first, last, target=CGROUP).cross_check["ledger.on_cpu_ms"]

    assert (check.ebpf, check.kernel) == (2.0, 2.0)


def test_threads_that_died_have_the_kernels_last_word(sample):
    """Less what it had of them when the run began; what was a zombie by then said its last word before."""
    before = {1: in_proc(5_000_000, 1_000_000), 2: in_proc(700_000, 70_000, state="Z")}
    words = LastWords(100_000_000, 10_000_000, 900_000_000, 90_000_000)
    first = sample(SECOND, members=Members(root=1, ended_threads=3, proc_threads=before, last_words=words))
    words = LastWords(104_000_000, 10_600_000, 909_100_000, 91_700_000)
    last = sample(2 * SECOND, members=Members(root=1, ended_threads=4, last_words=words))

    checks = built(first, last, target=PROCESS).cross_check

    assert {name: (check.ebpf, check.kernel) for name, check in checks.items()} == {
        "ledger.on_cpu_ms": (4.0, 4.1),
        "ledger.runnable_ms": (0.6, 0.7),
    }
    assert "as they left their last CPU" in checks["ledger.on_cpu_ms"].note


def test_no_schedstat_of_threads_that_nobody_knows(sample):
    """A check of nothing would agree with everything."""
    last = sample(SECOND, tasks=[running(1, 0)], members=Members())

    assert built(sample(0), last, target=PROCESS).cross_check == {}


def test_absent_modules_have_a_reason(sample):
    """The reason is at the top of the evidence, as the module has no section."""
    modules = [module for module in CATALOG if module.name != "exec"]

    found = built(
        sample(0, modules), sample(SECOND, modules), modules=modules, absent={"exec": "does not compile"}
    ).as_json()

    assert found["unavailable"] == {"exec": "does not compile"}
    assert "exec" not in found


def test_the_shape_that_consumers_rely_on(sample, counted):
    """Every key of design.md §7 of the modules that there are, with anything observed at all."""
    calls = (1,) + (0,) * 511
    last = sample(
        SECOND,
        runqlat={"latency_ns": counted(2_000)},
        biolatency={"latency_ns": counted(80_000)},
        exec={"exec_count": 1, "commands": {b"sh": (1).to_bytes(8, "little")}},
        offcpu={"woken_wait_ns": 1_000_000},
        syscalls={"calls": calls},
    )

    found = built(sample(0), last).as_json()

    assert (found["available"], found["source"], found["reason"]) == (True, "ebpf", "")
    assert {f"{key}.{name}" for key, names in CONSUMERS_RELY_ON.items() for name in names - found[key].keys()} == set()
    assert found["runqlat"]["histogram"][0].keys() == {"bucket_us", "count"}
    assert {"reason", "ms"} <= found["offcpu"]["top_reasons"][0].keys()
    assert found["exec"]["top_commands"] == [{"command": "sh", "count": 1}]


def test_sections_come_in_the_catalogues_order(sample):
    """Between the fixed parts, so that two evidences can be compared line by line."""
    found = list(built(sample(0), sample(SECOND)).as_json())

    assert found[6 : 6 + len(CATALOG)] == [module.section_key for module in CATALOG]


def test_a_target_without_offcpu(sample):
    """There is no ledger, nor a check of it, and the reason stands where people look for it."""
    exec_ = [module for module in CATALOG if module.name == "exec"]
    target = Target(kind="pid", pid=7)
    members = Members(proc_threads={7: in_proc(1, 1, born_ns=1)})
    last = sample(SECOND, tasks=[RUNNING], members=members)

    found = built(sample(0), last, modules=exec_, target=target).as_json()
    whole = built(sample(0), last, target=target).as_json()
    machine = built(sample(0), last, modules=exec_).as_json()

    assert "ledger" not in found
    assert found["unavailable"] == {"ledger": NO_LEDGER}
    assert (found["cross_check"], whole["unavailable"], machine["unavailable"]) == ({}, {}, {})
    assert "ledger" in whole
    assert whole["cross_check"].keys() == {"ledger.on_cpu_ms", "ledger.runnable_ms"}


RUNNING = OpenInterval(TaskState.RUNNING, 0, 0, kernel_thread=False, thread=Thread(7, 7, "x", 0))


def test_only_attached_programs_cost(sample):
    """A program that was not attached in the run is not listed in its cost, not even with a zero."""
    runs = {"fork": ProgramRun(10, 1, 0), "switch": ProgramRun(0, 0, 0)}
    last = {"fork": ProgramRun(110, 3, 0), "switch": ProgramRun(0, 0, 0)}

    found = built(
        sample(0, programs=runs), sample(SECOND, programs=last), program_sources={"fork": "raw_tracepoint:fork"}
    )

    assert [(program.hook, program.runs) for program in found.cost.programs] == [("fork", 2)]
    assert (found.cost.events, found.cost.bpf_ns) == (2, 100)


def test_sampled_figures_say_so(sample):
    """Sections with sampled figures have standard errors, but only if the run samples."""
    last = sample(SECOND, syscalls={"total": 400, "calls": (400,) + (0,) * 511})
    how = replace(method(), sample_interval=10)

    found = build(RUN, how, sample(0), last, NAMES).as_json()

    assert found["syscall_counts"]["sampling"]["standard_error"] == {"total": 60.0, "read": 60.0}
    assert [key for key, value in found.items() if isinstance(value, dict) and "sampling" in value] == [
        *("io", "locks", "memory", "syscall_counts")
    ]
    assert "sampling" not in built(sample(0), last).as_json()["syscall_counts"]
