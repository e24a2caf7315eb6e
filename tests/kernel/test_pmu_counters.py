"""The CPU's counters: which there are, why not, and what a thread that is still at work has on the clock."""

import errno
import os

import pytest

from chainbench_agent.bpf import perf_events
from chainbench_agent.bpf.perf_events import SOFTWARE
from chainbench_agent.evidence.sample import OpenInterval, ProcThread, Sleeper, TaskState, Thread
from chainbench_agent.kernel import pmu_counters
from chainbench_agent.kernel.pmu_counters import OpenCounters
from chainbench_agent.kernel.reading.current_run import Current
from chainbench_agent.kernel.reading.map_decoding import ON_CPU
from chainbench_agent.kernel.targets.kernel_target import KernelTarget, TargetKind
from chainbench_agent.probes.memory import COUNTERS, MODULE

SIZE = len(COUNTERS)
LAYOUT = pmu_counters.span_layout(SIZE)


@pytest.mark.bpf
def test_a_counter_counts_when_it_is_enabled():
    """Reading it returns the value, the time enabled, and the time running."""
    fd = perf_events.open_event(SOFTWARE, 0, cpu=perf_events.online_cpus()[0], counting=True)
    with os.fdopen(fd, "rb", buffering=0) as file:
        assert pmu_counters._VALUE.unpack(file.read(24)) == (0, 0, 0)
        perf_events.enable(fd)
        sum(range(100_000))
        value, enabled, ran = pmu_counters._VALUE.unpack(file.read(24))

    assert value > 0
    assert enabled == ran > 0


RUN, BEGAN = 7, 1000


@pytest.fixture
def ended(monkeypatch):
    """`ended(spans, on_cpu, where)`: counters of 4 CPUs after run 7; counter 0 of CPU n stands at 100 + n.

    `spans`: CPU → (tid, run, since); `on_cpu`: CPU → run of its last switch; `where`: the CPUs that threads are on.
    """

    def make(spans, on_cpu, where=frozenset()):
        found = OpenCounters({}, [MODULE], mask=1)
        found._fds = {(0, cpu): -1 for cpu in range(4)}
        found._final = {(0, cpu): (100 + cpu, 50, 40) for cpu in range(4)}
        records = {
            cpu.to_bytes(4, "little"): LAYOUT.pack(tid, run, since, *(10 if since < 100 else 60,) * 2, *(0,) * 15)
            for cpu, (tid, run, since) in ((cpu, spans.get(cpu, (0, 0, 0))) for cpu in range(4))
        }
        last_runs = b"".join(ON_CPU.pack(0xDEAD, 1, on_cpu.get(cpu, 0)) for cpu in range(4))
        monkeypatch.setattr(found, "_on_cpu", lambda: last_runs)
        monkeypatch.setattr(pmu_counters, "_processors", lambda threads: set(where) if threads else set())
        return found, COUNTED | {"span": records}

    return make


COUNTED = {"counters": (1000, *(0,) * (3 * SIZE - 1)), "oom_kills": 1}


def added(counters, values, tasks=(), sleepers=(), kind=TargetKind.TREE):
    return counters.added(values, tasks, sleepers, Current(RUN, KernelTarget(kind), BEGAN, set(), 0, {}))


def totals(values):
    """Value, time enabled and time running of counter 0."""
    return values["counters"][::SIZE]


def test_a_thread_that_entered_and_is_still_there(ended):
    """Counts since it entered its CPU are added, not those of an old run, or of one after the reading."""
    spans = {0: (9, RUN, 777), 1: (10, RUN, 61), 2: (11, RUN - 1, 0), 3: (0, RUN, 0)}

    found = added(*ended(spans, dict.fromkeys(range(4), RUN)))

    assert totals(found) == (1000 + 101 - 61, 50 - 10, 40 - 10)
    assert found["oom_kills"] == 1


def working(since_ns):
    return OpenInterval(TaskState.RUNNING, since_ns, -1, kernel_thread=False, thread=Thread(10, 10, "a", BEGAN))


def sleeper(state):
    return Sleeper(Thread(10, 10, "a", BEGAN), 0, "", ProcThread(10, "a", BEGAN, state, 0, 0, 1))


@pytest.mark.parametrize(
    ("tasks", "sleepers", "counts"),
    [
        ((working(BEGAN),), (), True),
        ((working(BEGAN + 1),), (), False),  # it entered in this run, so there is a span or nothing
        ((), (sleeper("R"),), True),
        ((), (sleeper("S"),), False),
    ],
)
def test_a_thread_that_never_switched(ended, tasks, sleepers, counts):
    """It has had its CPU for the whole run, if that CPU made no switch either."""
    found = added(*ended({}, {0: RUN, 1: RUN}, where={1, 3}), tasks, sleepers)

    assert totals(found) == ((1000 + 103, 50, 40) if counts else (1000, 0, 0))


def test_the_whole_machine(ended):
    """The sum of the counters of all CPUs, and nothing else."""
    found = added(*ended({1: (10, RUN, 61)}, {}), kind=TargetKind.MACHINE)

    assert totals(found) == (100 + 101 + 102 + 103, 200, 160)


def test_what_cannot_be_read(ended, monkeypatch):
    """The run ends all the same, and it is said when the values are asked for."""

    def fail(*_):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    counters, values = ended({0: (9, RUN, 61)}, {})
    monkeypatch.setattr(counters, "_read", fail)
    counters.end()

    with pytest.raises(OSError, match="Bad file descriptor"):
        added(counters, values)


@pytest.mark.parametrize("modules", [[MODULE], []])
def test_without_counters(modules):
    """The values are as they were."""
    assert added(OpenCounters({}, modules, mask=0), COUNTED) == COUNTED
