"""The CPU's counters: which there are, why not, and what a thread that is still at work has on the clock."""

import errno
import os
from dataclasses import replace

import pytest

from chainbench_agent.bpf import perf_events
from chainbench_agent.bpf.perf_events import SOFTWARE
from chainbench_agent.evidence.sample import Members, OpenInterval, ProcThread, Sample, Sleeper, TaskState, Thread
from chainbench_agent.kernel import pmu_counters
from chainbench_agent.kernel.reading.map_decoding import ON_CPU
from chainbench_agent.probes.memory import COUNTERS

SIZE = len(COUNTERS)


@pytest.mark.bpf
def test_a_counter_counts_when_it_is_enabled():
    """And answers with the time that it was wanted and the time that it ran."""
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
        found = pmu_counters.Counters({}, mask=1)
        found._fds = {(0, cpu): -1 for cpu in range(4)}
        found._final = {(0, cpu): (100 + cpu, 50, 40) for cpu in range(4)}
        maps = {
            "memory_span": b"".join(
                pmu_counters._SPAN.pack(tid, run, since, *(10 if since < 100 else 60,) * 2, *(0,) * 15)
                for tid, run, since in (spans.get(cpu, (0, 0, 0)) for cpu in range(4))
            ),
            "cb_on_cpu": b"".join(ON_CPU.pack(0xDEAD, 1, on_cpu.get(cpu, 0)) for cpu in range(4)),
        }
        monkeypatch.setattr(found, "_per_cpu", maps.get)
        monkeypatch.setattr(pmu_counters, "_processors", lambda threads: set(where) if threads else set())
        return found

    return make


COUNTED = Sample(at_ns=2000, modules={"memory": {"counters": (1000, *(0,) * (3 * SIZE - 1)), "oom_kills": 1}})


def totals(sample):
    """Of counter 0: value, enabled, running."""
    return sample.modules["memory"]["counters"][::SIZE]


def test_a_thread_that_entered_and_is_still_there(ended):
    """From where the counters stood then; nothing of an old run's, nor of one that came after the reading."""
    found = ended(
        {0: (9, RUN, 777), 1: (10, RUN, 61), 2: (11, RUN - 1, 0), 3: (0, RUN, 0)}, dict.fromkeys(range(4), RUN)
    )

    sample = found.complete(COUNTED, RUN, BEGAN, targeted=True)

    assert totals(sample) == (1000 + 101 - 61, 50 - 10, 40 - 10)
    assert sample.modules["memory"]["oom_kills"] == 1


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
    sample = replace(COUNTED, tasks=tasks, members=Members(sleepers=sleepers))

    found = ended({}, {0: RUN, 1: RUN}, where={1, 3}).complete(sample, RUN, BEGAN, targeted=True)

    assert totals(found) == ((1000 + 103, 50, 40) if counts else (1000, 0, 0))


def test_the_whole_machine(ended):
    """What the counters of all CPUs say, and nothing else."""
    found = ended({1: (10, RUN, 61)}, {}).complete(COUNTED, RUN, BEGAN, targeted=False)

    assert totals(found) == (100 + 101 + 102 + 103, 200, 160)


@pytest.mark.parametrize("what", ["spans", "counters"])
def test_what_cannot_be_read_costs_the_memory_module(ended, monkeypatch, what):
    """The run ends all the same, and the other modules keep what they have."""

    def fail(*_):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    found = ended({0: (9, RUN, 61)}, {})
    monkeypatch.setattr(found, "_per_cpu" if what == "spans" else "_read", fail)
    if what == "counters":
        found.end()
    sample = replace(COUNTED, modules={**COUNTED.modules, "exec": {"exec_count": 53}})
    sample = found.complete(sample, RUN, BEGAN, targeted=True)

    assert sample.modules == {"exec": {"exec_count": 53}}
    assert sample.unread == {"memory": "its figures could not be read: Bad file descriptor"}
    assert found.complete(sample, RUN, BEGAN, targeted=True) is sample


def test_without_counters():
    """The sample is as it was."""
    assert pmu_counters.Counters({}, mask=0).complete(COUNTED, RUN, BEGAN, targeted=True) is COUNTED
