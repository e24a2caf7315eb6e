"""CPU quotas of cgroups: how long each cgroup was throttled, and which quotas apply to a process.

A quota applies to a cgroup and all below it, so a process is throttled by the quotas of its cgroup and of those above.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from chainbench_agent.evidence.sample import Sleeper
from chainbench_agent.host import procfs

RUNNABLE = "R"
"""The state in /proc/PID/stat of a thread that runs or could run, also if a quota stops it."""

PROC = Path("/proc")
MOUNTS = PROC / "self/mountinfo"


def throttled_groups() -> dict[int, tuple[int, int]]:
    """Cgroup id → (nr_throttled, throttled_ns), for every cgroup that was throttled since it was created."""
    found = {}
    mount = cpu_mount()
    for stat in _cpu_stats(mount[1]) if mount else ():
        try:
            fields = dict(line.split() for line in stat.read_text().splitlines())
            group = stat.parent.stat().st_ino
        except OSError:  # removed meanwhile
            continue
        throttled_ns = int(fields.get("throttled_usec", 0)) * 1000 or int(fields.get("throttled_time", 0))
        if int(fields.get("nr_throttled", 0)):
            found[group] = (int(fields["nr_throttled"]), throttled_ns)
    return found


def groups_above(processes: Iterable[int]) -> frozenset[int]:
    """The ids of the cgroups whose quotas apply to these processes: their cgroups, and all above."""
    ids: dict[Path, int] = {}
    for group in _above({path for pid in processes for path in _paths(pid)}):
        if group not in ids:
            with suppress(OSError):  # removed meanwhile, or not visible in this cgroup namespace
                ids[group] = group.stat().st_ino
    return frozenset(ids.values())


def has_quota(pid: int) -> bool:
    """Whether a quota applies to a process: that of its cgroup, or of one above."""
    return any(_quota(group) for group in _above(set(_paths(pid))))


def with_quotas(sleepers: Iterable[Sleeper]) -> Iterator[Sleeper]:
    """`sleepers`, marked with `has_quota` if they could run and a quota may have stopped them."""
    for sleeper in sleepers:
        may = sleeper.proc.state == RUNNABLE and has_quota(sleeper.thread.pid)
        yield replace(sleeper, has_quota=True) if may else sleeper


def _above(paths: Collection[str]) -> Iterator[Path]:
    mount = cpu_mount()
    if mount is None:
        return
    root, directory = mount
    for path in paths:
        inside = PurePosixPath(path)
        if inside.is_relative_to(root) and ".." not in inside.parts:
            own = directory / inside.relative_to(root)
            yield from (group for group in (own, *own.parents) if group.is_relative_to(directory))


def _quota(group: Path) -> bool:
    """Whether a cgroup has a quota: v2 has it in `cpu.max`, v1 in `cpu.cfs_quota_us`, where -1 means no quota."""
    limits = [procfs.first_word(group / name) for name in ("cpu.max", "cpu.cfs_quota_us")]
    return any(limit.isdigit() for limit in limits)


def cpu_mount() -> tuple[str, Path] | None:
    """The mount of the hierarchy with the CPU controller: the cgroup at its root, and the directory.

    That is the v1 hierarchy of that controller if there is one, otherwise v2.
    """
    unified = None
    for line in MOUNTS.read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, directory = before.split()[3:5]
        kind, _source, options = after.split()[:3]
        if kind == "cgroup" and "cpu" in options.split(","):
            return root, Path(directory)
        if kind == "cgroup2" and unified is None:
            unified = root, Path(directory)
    return unified


def _paths(pid: int) -> Iterator[str]:
    """The cgroup of a process in the v1 hierarchy of the CPU controller if there is one, otherwise in v2."""
    with suppress(OSError):
        lines = [os.fsdecode(line).split(":", 2) for line in (PROC / str(pid) / "cgroup").read_bytes().splitlines()]
        own = [path for _, controllers, path in lines if "cpu" in controllers.split(",")]
        yield from own or [path for number, _, path in lines if number == "0"]


def _cpu_stats(root: Path) -> Iterator[Path]:
    for directory, _subdirectories, files in os.walk(root):
        if "cpu.stat" in files:
            yield Path(directory) / "cpu.stat"
