"""Open time: what was still going on when a run ended.  No program has counted it; each module adds its part."""

from __future__ import annotations

from dataclasses import dataclass

from chainbench_agent.catalog.names import Frames


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenThread:
    """The open time of a thread, as much of it as lies in the run and in the target."""

    on_cpu_ns: int = 0
    woken_wait_ns: int = 0
    """Waiting for a CPU since it was woken."""
    preempted_wait_ns: int = 0
    """Waiting for a CPU since it lost one."""
    throttled_ns: int = 0
    """A CPU quota did not let the thread run."""
    blocked_ns: int = 0
    wait: int = 0
    """The key of what it was blocked in: see probes/wait_key.py."""
    frames: Frames = ()
    """The kernel's functions that it was blocked in, if they are known."""
    futex_ns: int | None = None
    """Time in a system call that waits on a futex; None: it was in none."""
    off_cpu_counts: bool = True
    """False for kernel threads in a run of the whole machine: their sleep delays no program."""

    @property
    def off_cpu_ns(self) -> int:
        return self.woken_wait_ns + self.preempted_wait_ns + self.throttled_ns + self.blocked_ns


@dataclass(frozen=True, slots=True)
class IdleThreads:
    """The part of a run's totals that belongs to threads which hardly ran."""

    off_cpu_ns: int = 0
    futex_waits: int = 0
    futex_waited_ns: int = 0


@dataclass(frozen=True, slots=True)
class OpenTime:
    """All that was going on when a run ended."""

    begin_ns: int
    end_ns: int
    run: int
    """The number of the run, which records of the kernel side have."""
    threads: tuple[OpenThread, ...] = ()
    idle: IdleThreads | None = None
    """None for the whole machine, of which it is not known."""

    def span_ns(self, since_ns: int) -> int:
        """How much of the time since then lies in the run."""
        return max(self.end_ns - max(since_ns, self.begin_ns), 0)
