"""The processes and threads in a cgroup, and whether a process has ended: as /proc and the cgroup file system show.

A run reads this when it begins and when it ends.  In between the kernel side follows the target (probes/follow.h).
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
    """Whether no thread of a process lives.  Its leader may have ended before the others."""
    try:
        states = [procfs.stat(f"{PROC}/{pid}").state]
        if states[0] in DEAD:
            tasks = f"{PROC}/{pid}/task"
            states += [procfs.stat(f"{tasks}/{tid}").state for tid in os.listdir(tasks)]  # noqa: PTH208
    except OSError:
        return not (PROC / str(pid)).exists()
    return all(state in DEAD for state in states)


def born_ticks(process: int) -> int:
    """When a process was born, in clock ticks since the machine began; 0 if it is gone."""
    with suppress(OSError):
        return procfs.stat(PROC / str(process)).born_ticks
    return 0


def processes_of_cgroup(directory: Path) -> set[int]:
    """Those that are in a cgroup, or below it, or have a thread there.

    A threaded cgroup has threads of a process, and the kernel does not list processes there (EOPNOTSUPP).
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
    """0 if it is gone."""
    with suppress(OSError):
        return int(procfs.status(PROC / str(thread))["Tgid"])
    return 0


def _numbers(file: Path) -> set[int]:
    return set(map(int, file.read_bytes().split()))


def ids_in_cgroup(directory: Path, name: str) -> set[int]:
    """The numbers in the files of that name, `cgroup.procs` or `cgroup.threads`, in a cgroup and below it."""
    found: set[int] = set()
    for file in (directory / name, *directory.glob(f"**/{name}")):
        with suppress(OSError):
            found |= _numbers(file)
    return found
