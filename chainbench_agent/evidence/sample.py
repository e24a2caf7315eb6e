"""What was read from the kernel, exactly as it was read: no names, no units, no differences yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum


@dataclass(frozen=True, slots=True)
class HistogramCounts:
    """A histogram summed over the CPUs.  Nanoseconds; `min` and `max` are None when nothing was observed yet."""

    slots: tuple[int, ...]
    sum: int
    min: int | None
    max: int | None


Value = int | tuple[int, ...] | HistogramCounts | Mapping[bytes, bytes]
"""Counter, Table, Distribution, Keyed."""


class TaskState(IntEnum):
    """`enum cb_task_state` of probes/task.h."""

    FREE = 0
    UNSEEN = 1
    RUNNING = 2
    PREEMPTED = 3
    RUNNABLE = 4
    BLOCKED = 5


@dataclass(frozen=True, slots=True)
class OpenInterval:
    """A thread's present state.  `wait` and `stack` as in probes/offcpu.c; -1 for none."""

    state: TaskState
    since_ns: int
    wait: int
    stack: int
    kernel_thread: bool


@dataclass(frozen=True, slots=True)
class IdleSpan:
    """A CPU that is idle: in which C-state, since when."""

    state: int
    since_ns: int


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """The kernel's own account of one program: time, runs, and runs it skipped because one was under way."""

    ns: int
    runs: int
    missed: int


@dataclass(frozen=True, slots=True)
class Sample:
    """All maps at one time."""

    at_ns: int
    """CLOCK_MONOTONIC."""
    modules: Mapping[str, Mapping[str, Value]]
    loss: Mapping[str, int] = field(default_factory=dict)
    programs: Mapping[str, ProgramRun] = field(default_factory=dict)
    """By hook."""
    tasks: tuple[OpenInterval, ...] = ()
    idle: tuple[IdleSpan, ...] = ()
    throttled: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Cgroup id → (nr_throttled, throttled_ns), as its cpu.stat has it."""
    kernel: Mapping[str, int] = field(default_factory=dict)
    """The kernel's own counters of the same things, for the cross-check: "cpu.context_switches" → …"""
