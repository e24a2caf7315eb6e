"""CPU quotas of cgroups: what each was throttled, and which hold for a process.

A quota holds for a cgroup and all below it, so a process is throttled by its own cgroup's and by those above.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from chainbench_agent.evidence.sample import Sample, Sleeper
from chainbench_agent.host import procfs

Throttled = Mapping[int, tuple[int, int]]
"""Cgroup id → (nr_throttled, throttled_ns)."""

RUNNABLE = "R"
"""The state in /proc/PID/stat, also of a thread that its quota keeps from running."""

PROC = Path("/proc")
MOUNTS = PROC / "self/mountinfo"


def throttled_groups() -> dict[int, tuple[int, int]]:
    """Cgroup id → (nr_throttled, throttled_ns), of every cgroup that was throttled since it was made."""
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
    """The ids of the cgroups that these processes are in, and of all above: whose quotas hold for them."""
    ids: dict[Path, int] = {}
    for group in _above({path for pid in processes for path in _paths(pid)}):
        if group not in ids:
            with suppress(OSError):  # removed meanwhile, or outside of what this cgroup namespace shows
                ids[group] = group.stat().st_ino
    return frozenset(ids.values())


def has_quota(pid: int) -> bool:
    """Whether a quota holds for a process: its cgroup's, or that of one above."""
    return any(_quota(group) for group in _above(set(_paths(pid))))


def with_quotas(sleepers: Iterable[Sleeper]) -> Iterator[Sleeper]:
    """Of those that could run it is told whether a quota may have kept them from it."""
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
    """Of cgroup v2 in `cpu.max`, of v1 in `cpu.cfs_quota_us`, where -1 is none."""
    limits = [procfs.first_word(group / name) for name in ("cpu.max", "cpu.cfs_quota_us")]
    return any(limit.isdigit() for limit in limits)


def throttled_between(first: Sample, last: Sample) -> tuple[Throttled, Throttled]:
    """What the cgroups whose quotas hold for the target stood at when the run began, and when it ended.

    One that the target came into later has no beginning here: the kernel side notes what it stood at then.
    """
    counted = last.modules.get("cpu", {}).get("throttled_groups", {})
    seen = {int.from_bytes(key, "little") for key in counted} if isinstance(counted, Mapping) else set()
    if first.quota_groups is None or last.quota_groups is None:
        after, known = last.throttled, {*last.throttled, *seen}
    else:
        own = first.quota_groups | last.quota_groups | seen
        after = {group: stands for group, stands in last.throttled.items() if group in own}
        known = {*first.quota_groups, *(last.quota_groups - seen)}
    return {group: first.throttled.get(group, (0, 0)) for group in known}, after


def cpu_mount() -> tuple[str, Path] | None:
    """Where the hierarchy with the CPU controller is mounted: the cgroup that is its root there, and the directory.

    That is the v1 hierarchy of that controller, if there is one, or else v2.
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
    """The cgroup of a process in each hierarchy that could have the CPU controller; the v1 one's comes first."""
    with suppress(OSError):
        lines = [os.fsdecode(line).split(":", 2) for line in (PROC / str(pid) / "cgroup").read_bytes().splitlines()]
        own = [path for _, controllers, path in lines if "cpu" in controllers.split(",")]
        yield from own or [path for number, _, path in lines if number == "0"]


def _cpu_stats(root: Path) -> Iterator[Path]:
    for directory, _subdirectories, files in os.walk(root):
        if "cpu.stat" in files:
            yield Path(directory) / "cpu.stat"
