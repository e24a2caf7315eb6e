"""Intervals that are open when a run ends are cut there, and at the run's beginning."""

import pytest

from chainbench_agent.abi.process import Process
from chainbench_agent.evidence import open_intervals
from chainbench_agent.evidence.open_intervals import close_processes, open_time
from chainbench_agent.evidence.sample import OpenInterval, TaskState, Thread
from chainbench_agent.probes import CATALOG
from chainbench_agent.probes.cpu import IDLE_SPAN, NOT_IDLE
from chainbench_agent.probes.wait_key import NO_CALL

BEGIN, END = 1_000, 5_000
MODULES = {module.name: module for module in CATALOG}
FUTEX = 202
UNKNOWN = 0xFFFFFFFF


def closed(sample, *tasks, modules=("cpu", "offcpu"), targeted=False, **given):
    first, last = sample(BEGIN), sample(END, tasks=tasks, **given)
    open_ = open_time(first, last, targeted=targeted)
    return {name: open_intervals.closed(MODULES[name], last.modules[name], open_) for name in modules}


def task(state, since_ns, wait=UNKNOWN, frames=(), *, kernel_thread=False):
    return OpenInterval(state, since_ns, wait, kernel_thread, frames=frames)


def gained(counts):
    """All counts that are not zero, by "module.metric" and index."""
    found = {}
    for module, metrics in counts.items():
        for name, value in metrics.items():
            if isinstance(value, tuple):
                found |= {f"{module}.{name}[{index}]": part for index, part in enumerate(value) if part}
            elif value and isinstance(value, int):
                found[f"{module}.{name}"] = value
            elif name == "open_waits":
                found |= {f"offcpu.open_waits[{wait}]": ns for (wait, _), ns in value.items() if ns}
    return found


STATES = [
    (TaskState.RUNNING, "cpu.on_cpu_ns"),
    (TaskState.PREEMPTED, "offcpu.preempted_wait_ns"),
    (TaskState.RUNNABLE, "offcpu.woken_wait_ns"),
    (TaskState.BLOCKED, f"offcpu.open_waits[{FUTEX}]"),
    (TaskState.THROTTLED, "offcpu.throttled_wait_ns"),
]


def added(metric, ns):
    """Counts to which an interval adds: off the CPUs, its time is in that of its kind and in the sums."""
    asleep = {"offcpu.asleep_ns": ns} if metric.startswith("offcpu.open_waits") else {}
    return {metric: ns} | asleep | ({"offcpu.off_cpu_ns": ns} if metric.startswith("offcpu.") else {})


@pytest.mark.parametrize(("state", "metric"), STATES)
@pytest.mark.parametrize(
    ("since_ns", "ns"),
    [(3_000, 2_000), (BEGIN, 4_000), (10, 4_000), (END, 0), (END + 7, 0)],
    ids=["within", "whole run", "longer than the run", "just now", "after the last sample's time"],
)
def test_both_edges(sample, state, metric, since_ns, ns):
    """Never longer than the run, and never negative."""
    assert gained(closed(sample, task(state, since_ns, FUTEX))) == (added(metric, ns) if ns else {})


def test_what_was_counted_stays(sample):
    """Open time is added; threads add up."""
    counted = {"on_cpu_ns": 70}
    found = closed(sample, task(TaskState.RUNNING, 4_000), task(TaskState.RUNNING, 4_500), cpu=counted)

    assert found["cpu"]["on_cpu_ns"] == 70 + 1_000 + 500
    assert counted == {"on_cpu_ns": 70}


def test_kernel_threads(sample):
    """Without a target their time on CPUs counts and their sleep does not; as the target, all counts."""
    tasks = [task(state, 4_000, FUTEX, kernel_thread=True) for state, _ in STATES]

    assert gained(closed(sample, *tasks)) == {"cpu.on_cpu_ns": 1_000}
    assert gained(closed(sample, *tasks, targeted=True)) == {
        **{metric: 1_000 for _, metric in STATES},
        "offcpu.off_cpu_ns": 4_000,
        "offcpu.asleep_ns": 1_000,
    }


@pytest.mark.parametrize("state", [TaskState.UNSEEN, TaskState.FREE])
def test_a_thread_that_nobody_saw_gains_nothing(sample, state):
    """A guess would be a claim."""
    assert gained(closed(sample, task(state, 4_000, FUTEX))) == {}


def test_an_unknown_wait_has_no_call(sample):
    """A wait whose call is unknown is counted as one without a call."""
    assert gained(closed(sample, task(TaskState.BLOCKED, 4_000))) == added(f"offcpu.open_waits[{NO_CALL}]", 1_000)


def test_open_waits_by_their_functions(sample):
    """Waits with the same call and stack are added up; a wait without a stack counts, too."""
    found = closed(
        sample,
        task(TaskState.BLOCKED, 4_000, FUTEX, ("futex_do_wait",)),
        task(TaskState.BLOCKED, 4_900, FUTEX, ("futex_do_wait",)),
        task(TaskState.BLOCKED, 4_990, FUTEX),
    )["offcpu"]

    assert found["open_waits"] == {(FUTEX, ("futex_do_wait",)): 1_100, (FUTEX, ()): 10}


def test_idle_cpus(sample):
    """By state; one beyond the table is in the last entry.  Spans of another run, or not idle, are left out."""
    spans = [(4_000, 2, 7), (500, 2, 7), (4_900, 99, 7), (4_000, 3, 6), (4_000, NOT_IDLE, 7)]
    records = {bytes([cpu]): IDLE_SPAN.pack(*span) for cpu, span in enumerate(spans)}
    found = closed(sample, cpu={"idle_span": records}, run=7)

    assert gained(found) == {"cpu.idle_ns[2]": 5_000, "cpu.idle_ns[15]": 100}


@pytest.mark.parametrize("modules", [("cpu",), ("offcpu",), ()])
def test_modules_that_are_off(sample, modules):
    """Intervals are not added to modules that are off."""
    tasks = [task(state, 4_000, FUTEX) for state, _ in STATES]
    found = closed(sample, *tasks, modules=modules)

    assert {name.split(".")[0] for name in gained(found)} == set(modules)


def figures(on_cpu_ns=0, off_cpu_ns=0):
    return {"cpu": {"on_cpu_ns": on_cpu_ns, "context_switches": 7}, "offcpu": {"off_cpu_ns": off_cpu_ns}}


def of_process(pid, state, since_ns, *, kernel_thread=False):
    return OpenInterval(state, since_ns, UNKNOWN, kernel_thread, Thread(pid + 1, pid, "thread", 0))


def processes(sample, *tasks, of, targeted=False):
    """Process → (on CPU, off CPU), closed."""
    last = sample(END, tasks=tasks, processes=of)
    found = close_processes(sample(BEGIN), last, CATALOG, targeted=targeted)
    assert [p.command for p in found] == [p.command for p in of]
    assert all(p.figures["cpu"]["context_switches"] == 7 for p in found)
    return {p.pid: (p.figures["cpu"]["on_cpu_ns"], p.figures["offcpu"]["off_cpu_ns"]) for p in found}


def test_open_time_belongs_to_the_process_of_its_thread(sample):
    """Added to what the process had; its threads add up; a process without a record gains nothing anywhere."""
    known = (Process(10, "a", figures(100, 30)), Process(20, "b", figures()))
    tasks = [
        of_process(10, TaskState.RUNNING, 4_000),
        of_process(10, TaskState.RUNNING, 4_500),
        *(of_process(20, state, 4_900) for state, _ in STATES),
        of_process(30, TaskState.RUNNING, 4_000),
        of_process(10, TaskState.UNSEEN, 4_000),
    ]

    assert processes(sample, *tasks, of=known) == {10: (100 + 1_000 + 500, 30), 20: (100, 400)}
    assert known[0].figures == figures(100, 30)


@pytest.mark.parametrize("targeted", [False, True])
def test_processes_gain_what_their_modules_gain(sample, targeted):
    """The same tasks, closed both ways, are the same time: otherwise the others' part would be wrong."""
    tasks = [
        of_process(10, state, since_ns, kernel_thread=kernel_thread)
        for state in TaskState
        for since_ns in (10, 3_000, END + 7)
        for kernel_thread in (False, True)
    ]
    modules = closed(sample, *tasks, targeted=targeted)

    found = processes(sample, *tasks, of=(Process(10, "a", figures()),), targeted=targeted)

    assert found == {10: (modules["cpu"]["on_cpu_ns"], modules["offcpu"]["off_cpu_ns"])}


def test_processes_of_modules_that_are_off(sample):
    """There is nothing to add to."""
    last = sample(END, tasks=[of_process(10, state, 4_000) for state, _ in STATES], processes=(Process(10, "a", {}),))

    assert close_processes(sample(BEGIN), last, CATALOG)[0].figures == {}
