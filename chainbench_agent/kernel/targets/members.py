"""Reads which processes and threads are in a cgroup, and whether a process has ended.

A run needs this when it begins and when it ends.  In between the kernel side follows the target (probes/follow.h).
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from chainbench_agent.host import procfs

PROC = Path("/proc")

DEAD = frozenset("ZXx")
"""States in /proc/PID/stat of a thread that has ended."""


def has_ended(pid: int) -> bool:
    """Whether all threads of a process have ended.  Its leader may end before the others."""
    try:
        states = [procfs.stat(f"{PROC}/{pid}").state]
        if states[0] in DEAD:
            tasks = f"{PROC}/{pid}/task"
            states += [procfs.stat(f"{tasks}/{tid}").state for tid in os.listdir(tasks)]  # noqa: PTH208
    except OSError:
        return not (PROC / str(pid)).exists()
    return all(state in DEAD for state in states)


def born_ticks(process: int) -> int:
    """When a process was created, in clock ticks since the machine booted; 0 if it has ended."""
    with suppress(OSError):
        return procfs.stat(PROC / str(process)).born_ticks
    return 0


def processes_of_cgroup(directory: Path) -> set[int]:
    """The processes that are in a cgroup or below it, or have a thread there.

    A threaded cgroup contains threads of processes, and the kernel does not list processes there (EOPNOTSUPP).
    """
    found: set[int] = set()
    for group in (directory, *(file.parent for file in directory.glob("**/cgroup.procs") if file.parent != directory)):
        try:
            found |= _numbers(group / "cgroup.procs")
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                found |= {
                    process for thread in ids_in_cgroup(group, "cgroup.threads") if (process := _process_of(thread))
                }
    return found


def _process_of(thread: int) -> int:
    """The process of a thread; 0 if it has ended."""
    with suppress(OSError):
        return int(procfs.status(PROC / str(thread))["Tgid"])
    return 0


def _numbers(file: Path) -> set[int]:
    return set(map(int, file.read_bytes().split()))


def ids_in_cgroup(directory: Path, name: str) -> set[int]:
    """The ids in the files called `name`, `cgroup.procs` or `cgroup.threads`, of a cgroup and of all below it."""
    found: set[int] = set()
    for file in (directory / name, *directory.glob(f"**/{name}")):
        with suppress(OSError):
            found |= _numbers(file)
    return found
