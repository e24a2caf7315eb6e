"""A module's per-CPU struct, from bytes to values.  Every field is made of u64 words (see fuse.py)."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator

from chainbench_agent.evidence.sample import HistogramCounts, IdleSpan, OpenInterval, TaskState, Value
from chainbench_agent.spec import HISTOGRAM_SLOTS, Distribution, Metric, Module, Table

WORD = 8
_HISTOGRAM_WORDS = HISTOGRAM_SLOTS + 4  # slots, sum, min, max, run
_TASK = struct.Struct("=QQIIIiBBB5x")  # struct cb_task of probes/task.h
_TASK_RUN_WORD = 5  # of 32 bits
_ON_CPU = struct.Struct("=II")  # struct cb_on_cpu of probes/task.h
_IDLE = struct.Struct("=QII")  # struct cpu_idle_span of probes/cpu.c
_NOT_IDLE = 0xFFFFFFFF


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
    slots = tuple(map(sum, zip(*(part[:HISTOGRAM_SLOTS] for part in parts), strict=True)))
    total, least, most, of_run = zip(*(part[HISTOGRAM_SLOTS:] for part in parts), strict=True)
    ours = [i for i, number in enumerate(of_run) if number == run]
    return HistogramCounts(
        slots,
        sum(total),
        min((least[i] for i in ours), default=None),
        max((most[i] for i in ours), default=None),
    )


def open_tasks(memory: memoryview, on_cpu: bytes, run: int) -> Iterator[OpenInterval]:
    """The threads that `run` has seen and that have not ended, without the agent's own.

    A thread that is RUNNING but that no CPU has entered last has left unseen; when, nobody knows.
    """
    entered = {tid for tid, of_run in _ON_CPU.iter_unpack(on_cpu) if of_run == run}
    runs = memory.cast("I")[_TASK_RUN_WORD :: _TASK.size // 4].tolist()
    for index, of_run in enumerate(runs):
        if of_run != run:
            continue
        since_ns, _regs, tid, _run, wait, stack, state, counted, kthread = _TASK.unpack_from(memory, index * _TASK.size)
        if state == TaskState.RUNNING and tid not in entered:
            continue
        if counted and state > TaskState.UNSEEN:
            yield OpenInterval(TaskState(state), since_ns, wait, stack, bool(kthread))


def idle_cpus(raw: bytes, run: int) -> Iterator[IdleSpan]:
    """The CPUs that went idle in `run` and still are."""
    for since_ns, state, of_run in _IDLE.iter_unpack(raw):
        if of_run == run and state != _NOT_IDLE:
            yield IdleSpan(state, since_ns)
