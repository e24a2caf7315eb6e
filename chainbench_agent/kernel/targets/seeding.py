"""Gives the kernel side the members of the target when a run begins; it follows the target from then on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from chainbench_agent.bpf import libbpf
from chainbench_agent.kernel.targets.kernel_target import KernelTarget, TargetKind
from chainbench_agent.kernel.targets.members import has_ended
from chainbench_agent.loading.loader import MapFd


def seed_maps(target: KernelTarget, maps: Mapping[str, MapFd]) -> int:
    """Writes the processes of a tree, or the threads of a cgroup, into the maps; returns the number of processes."""
    members = maps["cb_members"].fd
    if target.kind == TargetKind.CGROUP:
        with suppress(OSError):  # threads without room are looked at when they next do something
            for tid in target.threads():
                libbpf.update(maps["cb_seeded"].fd, tid, b"\1")
    if target.kind != TargetKind.TREE:
        return 0
    return seed_tree(
        target,
        lambda pid: libbpf.update(members, pid, (1).to_bytes(8, "little")),
        lambda pid: libbpf.delete(members, pid.to_bytes(4, "little")),
    )


def seed_tree(target: KernelTarget, add: Callable[[int], None], remove: Callable[[int], None]) -> int:
    """Adds the processes of the tree until there is no new one, and returns how many there are.

    The kernel side adds the children of members, so only processes that others forked before remain to be found, and
    each pass over /proc finds at least one generation of them.  A process that has ended, or is a zombie, is removed
    again.
    """
    added: set[int] = set()
    while new := target.processes() - added:
        for pid in new:
            add(pid)
        added |= new
    for pid in added:
        if has_ended(pid):
            remove(pid)
            added = added - {pid}
    return len(added)
