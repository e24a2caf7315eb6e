"""Decodes a module's per-CPU struct and the shared records of threads.  Every field is made of u64 words."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import replace

from chainbench_agent.abi import command_name
from chainbench_agent.abi.c_struct import CStruct
from chainbench_agent.abi.histogram import HistogramCounts
from chainbench_agent.bpf.libbpf import possible_cpus
from chainbench_agent.catalog import HISTOGRAM_SLOTS, Distribution, Metric, Module, Table
from chainbench_agent.evidence.sample import (
    Account,
    OpenInterval,
    TaskState,
    Thread,
    Value,
)

_HISTOGRAM_HEAD = 4  # sum, min, max, run; behind them the slots
_HISTOGRAM_WORDS = _HISTOGRAM_HEAD + HISTOGRAM_SLOTS
_TASK = CStruct(  # struct cb_task of probes/task.h; what is skipped is the kernel side's own
    since_ns="Q", on_cpu_ns="Q", runnable_ns="Q", blocked_ns="Q", regs="8x",
    tid="I", run="I", tgid="I", wait="I", moves="4x", state="B", counted="B", kthread="B", ended="x",
    begin_ns="Q", throttled_ns="Q", css_set="8x", call_ns="Q", noted="8x", born="I", file="2x", call="B", pages="x",
    exec_ns="8x", unseen_ns="8x", comm="16s", mapping="8x", futex_waits="Q", futex_waited_ns="Q", since_birth="8x",
    pad="16x",
)  # fmt: skip
_TASK_RUN_WORD = 11  # of 32 bits
_TASK_STATE_BYTE = 60
_THREAD_KEY = CStruct(begin_ns="Q", tid="I", tgid="I")  # struct cb_thread_key
_THREAD = CStruct(**dict.fromkeys(Account.__slots__, "Q"), comm="16s")  # struct cb_thread
ON_CPU = CStruct(thread="Q", tid="I", run="I")  # struct cb_on_cpu of probes/task.h


def words(metric: Metric) -> int:
    """The size of a metric's field, in words."""
    if isinstance(metric, Distribution):
        return _HISTOGRAM_WORDS
    return metric.entries if isinstance(metric, Table) else 1


def decode(module: Module, raw: bytes, cpus: int, run: int) -> dict[str, Value]:
    """The metrics of `module`, summed over the CPUs; extremes are those of `run`."""
    memory = array("Q", raw)
    stride = len(memory) // cpus
    values: dict[str, Value] = {}
    start = 0
    for metric in module.per_cpu:
        end = start + words(metric)
        parts = [memory[cpu * stride + start : cpu * stride + end] for cpu in range(cpus)]
        if isinstance(metric, Distribution):
            values[metric.name] = _histogram(parts, run)
        elif isinstance(metric, Table):
            values[metric.name] = tuple(map(sum, zip(*parts, strict=True)))
        else:
            values[metric.name] = sum(part[0] for part in parts)
        start = end
    return values


def _histogram(parts: list[array[int]], run: int) -> HistogramCounts:
    slots = tuple(map(sum, zip(*(part[_HISTOGRAM_HEAD:] for part in parts), strict=True)))
    total, least, most, of_run = zip(*(part[:_HISTOGRAM_HEAD] for part in parts), strict=True)
    ours = [i for i, number in enumerate(of_run) if number == run]
    return HistogramCounts(
        slots,
        sum(total),
        min((least[i] for i in ours), default=None),
        max((most[i] for i in ours), default=None),
    )


def open_tasks(memory: memoryview, on_cpu: bytes, run: int) -> Iterator[OpenInterval]:
    """The threads that `run` has seen and that have not ended, without the agent's own.

    A thread that is RUNNING but that no CPU has entered last has left it unseen at an unknown time: it is UNSEEN.
    """
    entered = {tid for _, tid, of_run in ON_CPU.iter_unpack(on_cpu) if of_run == run}
    still = any(of_run != run for *_, of_run in ON_CPU.iter_unpack(on_cpu))  # a CPU that made no switch
    for interval, counted in _records(memory, run):
        if not counted:
            continue
        if interval.state == TaskState.UNSEEN:  # at work, and never switched: it has its CPU since the run began
            yield replace(interval, state=TaskState.RUNNING)
        elif (
            interval.state == TaskState.RUNNING
            and interval.tid not in entered
            and not (still and interval.since_ns == interval.thread.begin_ns)
        ):
            yield replace(interval, state=TaskState.UNSEEN)
        else:
            yield interval


def strangers(memory: memoryview, run: int) -> dict[int, int]:
    """The threads that `run` has seen outside of the target: thread id → when its present state began."""
    return {interval.tid: interval.since_ns for interval, counted in _records(memory, run) if not counted}


def off_cpu_since(memory: memoryview, run: int) -> tuple[dict[int, int], set[int]]:
    """The threads off the CPUs that `run` has seen → since when; and all threads that it has seen."""
    records = [interval for interval, _ in _records(memory, run)]
    on = (TaskState.RUNNING, TaskState.UNSEEN)
    return {one.tid: one.since_ns for one in records if one.state not in on}, {one.tid for one in records}


def _records(memory: memoryview, run: int) -> Iterator[tuple[OpenInterval, int]]:
    """The threads that `run` has seen and that have not ended, and whether each is counted."""
    runs = memory.cast("I")[_TASK_RUN_WORD :: _TASK.size // 4].tolist()
    states = bytes(memory[_TASK_STATE_BYTE :: _TASK.size])
    for index, (of_run, state) in enumerate(zip(runs, states, strict=True)):
        if of_run == run and state != TaskState.FREE:
            yield _open_task(memory, index)


def _open_task(memory: memoryview, index: int) -> tuple[OpenInterval, int]:
    record = _TASK.unpack_from(memory, index * _TASK.size)
    since, on_cpu, runnable, blocked, tid, _run, tgid, wait, state, counted, kthread = record[:11]
    begin, throttled, call_ns, born, call, comm, futex_waits, futex_waited = record[11:]
    return OpenInterval(
        TaskState(state),
        since,
        wait,
        bool(kthread),
        Thread(born, tgid, command_name.decode(comm), begin),
        Account(0, on_cpu, runnable, blocked, throttled, futex_waits, futex_waited),
        call,
        call_ns,
        tid if tid != born else 0,
    ), counted


def ended_threads(entries: Mapping[bytes, bytes]) -> dict[Thread, Account]:
    """The map `cb_ended_threads`."""
    found = {}
    for key, value in entries.items():
        begin_ns, tid, tgid = _THREAD_KEY.unpack(key)
        *account, comm = _THREAD.unpack(value)
        found[Thread(tid, tgid, command_name.decode(comm), begin_ns)] = Account(*account)
    return found


def sums(raw: bytes) -> tuple[int, ...]:
    """A per-CPU struct of u64 fields, summed over the CPUs."""
    memory, cpus = array("Q", raw), possible_cpus()
    return tuple(sum(memory[field :: len(memory) // cpus]) for field in range(len(memory) // cpus))
