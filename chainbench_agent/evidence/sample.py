"""The values read from the kernel at one moment, as they were read: no names, no units, no differences yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from chainbench_agent.abi.histogram import HistogramCounts
from chainbench_agent.abi.process import Process

Value = int | tuple[int, ...] | HistogramCounts | Mapping[bytes, bytes]
"""Counter, Table, Distribution; and Keyed, PerDisk and PerCpu, whose records are bytes."""


class TaskState(IntEnum):
    """`enum cb_task_state` of probes/lib/task.h."""

    FREE = 0
    UNSEEN = 1
    RUNNING = 2
    PREEMPTED = 3
    RUNNABLE = 4
    BLOCKED = 5
    THROTTLED = 6


@dataclass(frozen=True, slots=True)
class Account:
    """Where a thread's time went, until its present state began."""

    wall_ns: int = 0
    on_cpu_ns: int = 0
    runnable_ns: int = 0
    blocked_ns: int = 0
    throttled_ns: int = 0
    futex_waits: int = 0
    futex_waited_ns: int = 0
    """In calls that waited on a futex, which may be any of the above."""


@dataclass(frozen=True, slots=True)
class LastWords:
    """Times of threads that died, by our account (`checked`) and by the kernel's own."""

    checked_on_cpu_ns: int = 0
    checked_runnable_ns: int = 0
    kernel_on_cpu_ns: int = 0
    """From the births of the threads on, also where that was before the run."""
    kernel_runnable_ns: int = 0


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread of the target.  `begin_ns`, when it was born or the run began, and `tid` identify it.

    `tid` is its first number: a thread that executes a program takes its leader's.
    """

    tid: int
    pid: int
    command: str
    begin_ns: int


@dataclass(frozen=True, slots=True)
class OpenInterval:
    """A thread's present state, which is FREE after it has ended or left the target.

    `wait`: its key, as in probes/offcpu.h.
    """

    state: TaskState
    since_ns: int
    wait: int
    kernel_thread: bool
    thread: Thread = field(default_factory=lambda: Thread(0, 0, "", 0))
    account: Account = field(default_factory=Account)
    """`wall_ns` is 0 while a thread lives."""
    call: int = 0
    """The system call under way, as `enum cb_call`; see probes/machines/calls.h."""
    call_since_ns: int = 0
    number: int = 0
    """The thread's present id, if it is known to differ from its first."""
    frames: tuple[str, ...] = ()
    """BLOCKED: the kernel's functions that it is in, innermost first, if that is known."""
    until_ns: int = 0
    """When it was cut, as the thread left the target's cgroup; 0: it goes on."""

    @property
    def tid(self) -> int:
        return self.number or self.thread.tid


@dataclass(frozen=True, slots=True)
class ProcThread:
    """A thread as /proc shows it at one moment, `at_ns`."""

    pid: int
    command: str
    at_ns: int
    state: str
    """The letter in /proc/PID/stat: R for on a CPU or runnable, Z and X for dead."""
    born_ns: int
    """Its birth, rounded down to a clock tick; `born_by_ns` is rounded up."""
    born_by_ns: int
    on_cpu_ns: int | None
    """The kernel's own account since the thread was born (/proc/PID/schedstat); None where it keeps none."""
    runnable_ns: int = 0
    """The waits in a run queue that are over."""
    arrivals: int = 0
    """How often it was put on a CPU."""
    kernel_thread: bool = False

    @property
    def dead(self) -> bool:
        return self.state in {"Z", "X", "x"}

    @property
    def asleep(self) -> bool:
        return self.state != "R" and not self.dead


@dataclass(frozen=True, slots=True)
class Sleeper:
    """A thread of the target that no hook saw at work.  `function` is empty if the kernel names none."""

    thread: Thread
    syscall: int
    function: str
    proc: ProcThread
    wait: int | None = None
    """The key of its wait, as in probes/offcpu.h; None: nothing more is known than `syscall`."""
    frames: tuple[str, ...] = ()
    """The kernel's functions that it is in, innermost first; () where only `function` is known."""
    in_futex: bool = False
    """The system call is one that waits on a futex."""
    has_quota: bool = False
    """It could run, and a CPU quota holds for it."""
    until_ns: int = 0
    """When its process was moved out of the target's cgroup; 0: it is in it."""
    account: Account = field(default_factory=Account)
    """Where its time in the run went: evidence/sleepers.py."""

    @property
    def stack(self) -> tuple[str, ...]:
        return self.frames or ((self.function,) if self.function else ())

    @property
    def wait_key(self) -> int:
        return self.syscall if self.wait is None else self.wait


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """The kernel's own account of one program: time, runs, and runs it skipped because one was under way."""

    ns: int
    runs: int
    missed: int


@dataclass(frozen=True, slots=True)
class Members:
    """The target's threads, beyond those with an open interval.  The sums only grow; the rest is of the present run."""

    ended_threads: int = 0
    ended: Account = field(default_factory=Account)
    ended_singly: Mapping[Thread, Account] = field(default_factory=dict)
    sleepers: tuple[Sleeper, ...] = ()
    processes: int = 0
    threads: int = 0
    seeds: int = 0
    """Processes of a tree that were there when the run began: no hook counted them."""
    enrolled: frozenset[int] = frozenset()
    """Processes of a cgroup that a hook counted."""
    last_words: LastWords = field(default_factory=LastWords)
    root: int = 0
    """For a tree: the process that it begins with."""
    cuts: tuple[OpenInterval, ...] = ()
    """The states in which threads left the target's cgroup with their process; their accounts have that time."""
    proc_threads: Mapping[int, ProcThread] = field(default_factory=dict)
    """Thread id → the thread as /proc shows it, of all threads that were in the target at the time of the sample."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything that was read from the kernel at one moment."""

    at_ns: int
    """CLOCK_MONOTONIC."""
    modules: Mapping[str, Mapping[str, Value]]
    run: int = 0
    """The number of the run, which the records in the maps have."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Module → why its maps could not be read; it is not among `modules`, and all others are whole."""
    loss: Mapping[str, int] = field(default_factory=dict)
    programs: Mapping[str, ProgramRun] = field(default_factory=dict)
    """By hook."""
    tasks: tuple[OpenInterval, ...] = ()
    procfs: Mapping[str, int] = field(default_factory=dict)
    """`file:field` below /proc → the kernel's counter."""
    processes: tuple[Process, ...] = ()
    """Processes that have a record; what others did is in `modules` only."""
    throttled: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Cgroup id → (nr_throttled, throttled_ns), as its cpu.stat has it."""
    quota_groups: frozenset[int] | None = None
    """The cgroups whose quotas hold for the target's processes; None for the whole machine: all do."""
    members: Members = field(default_factory=Members)
    read_by_ns: int = 0
    """When the reading was over, of a sample that was taken during the run; 0 if nothing grew meanwhile."""
    kernel: Mapping[str, int] = field(default_factory=dict)
    """The kernel's own counters of the same things, for the cross-check: "cpu.context_switches" → …"""
    disk_ios: Mapping[int, int] = field(default_factory=dict)
    """Disk → the reads, writes and discards that have finished on it since boot, by the kernel's own count."""


def failure(what: str, error: OSError) -> str:
    """The reason why a module is not in a sample: its figures could not be `what`, such as read."""
    return f"its figures could not be {what}: {error.strerror or error}"
