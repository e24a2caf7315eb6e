"""Reads the threads of a target from /proc: their states, their ages, and the kernel's account of their time."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress

from chainbench_agent.evidence.sample import ProcThread, Sleeper, Thread
from chainbench_agent.host import procfs
from chainbench_agent.host.syscall_names import syscalls
from chainbench_agent.kernel.targets import members
from chainbench_agent.probes import CALLS
from chainbench_agent.probes.wait_key import NO_CALL

FUTEX_WAITS = frozenset((*CALLS["FUTEX"], *CALLS["FUTEX_WAIT"]))
"""The wait operations of futex(2).  A thread that sleeps in futex(2) waits, whatever the operation is."""


def proc_threads(processes: Iterable[int]) -> dict[int, ProcThread]:
    """Thread id → thread, for all threads of `processes`."""
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    suspended_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    found = {}
    for pid, tid, directory in _tasks(processes):
        with suppress(OSError):
            account = _schedstat(directory)
            stat = procfs.stat(directory)
            born_ns, born_by_ns = (
                ticks * 1_000_000_000 // ticks_per_s - suspended_ns for ticks in (stat.born_ticks, stat.born_ticks + 1)
            )
            at_ns = time.monotonic_ns()
            found[tid] = ProcThread(
                pid, stat.command, at_ns, stat.state, born_ns, born_by_ns, *account, stat.is_kernel_thread
            )
    return found


def sleepers(
    threads: Mapping[int, ProcThread], seen: Collection[int], began_ns: int, outside: Mapping[int, int]
) -> tuple[Sleeper, ...]:
    """The `threads` that no hook has `seen` in the target since the run began.

    `outside`: thread id → when it was last seen outside of the target.
    """
    return tuple(
        _sleeper(Thread(tid, proc.pid, proc.command, outside.get(tid, began_ns)), proc)
        for tid, proc in threads.items()
        if tid not in seen
    )


def _sleeper(thread: Thread, proc: ProcThread) -> Sleeper:
    directory = f"{members.PROC}/{thread.pid}/task/{thread.tid}"
    number = "" if proc.kernel_thread else procfs.first_word(f"{directory}/syscall")
    names = syscalls(os.uname().machine)
    call = int(number) if number.isdigit() and int(number) in names else NO_CALL
    function = procfs.first_word(f"{directory}/wchan")
    in_futex = names.get(call) in FUTEX_WAITS
    return Sleeper(thread, call, "" if function == "0" else function, proc, in_futex=in_futex)


def _tasks(processes: Iterable[int]) -> Iterator[tuple[int, int, str]]:
    """(process, thread, directory of the thread): strings, as ten thousand Path objects cost half a second."""
    for pid in processes:
        tasks = f"{members.PROC}/{pid}/task"
        with suppress(OSError):
            yield from ((pid, int(tid), f"{tasks}/{tid}") for tid in os.listdir(tasks))  # noqa: PTH208


def _schedstat(directory: str) -> tuple[int | None, int, int]:
    """`on_cpu_ns`, `runnable_ns` and `arrivals`; the first is None if the kernel has no account, which reads 0 0 0."""
    try:
        on_cpu_ns, runnable_ns, arrivals = map(int, procfs.read_page(f"{directory}/schedstat").split())
    except (OSError, ValueError):
        return None, 0, 0
    return (on_cpu_ns if arrivals else None), runnable_ns, arrivals
