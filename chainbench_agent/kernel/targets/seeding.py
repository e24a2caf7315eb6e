"""Who is in the target when a run begins, told to the kernel side; from then on that follows by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from chainbench_agent.bpf import libbpf
from chainbench_agent.kernel.targets.kernel_target import KernelTarget, TargetKind
from chainbench_agent.kernel.targets.members import has_ended
from chainbench_agent.loading.loader import MapFd


def seed_maps(target: KernelTarget, maps: Mapping[str, MapFd]) -> int:
    """How many processes were told: of a tree those in it, of a cgroup none, as its threads are."""
    members = maps["cb_members"].fd
    if target.kind == TargetKind.CGROUP:
        with suppress(OSError):  # those that have no room are looked at when they next do something
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
    """Add the processes of the tree until no new one turns up; answers how many.

    The kernel already adds the children of those that were added, so only what was forked before by others is to be
    found, and each pass over /proc finds a generation at least.  A process that has ended, or is a zombie,
    is removed again.
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
