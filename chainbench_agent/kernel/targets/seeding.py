"""Who is in the target when a run begins, told to the kernel side; from then on that follows by itself."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from chainbench_agent.bpf import libbpf
from chainbench_agent.kernel.targets.members import KernelTarget, Kind, seed
from chainbench_agent.loading.loader import MapFd


def seed_maps(target: KernelTarget, maps: Mapping[str, MapFd]) -> int:
    """How many processes were told: of a tree those in it, of a cgroup none, as its threads are."""
    members = maps["cb_members"].fd
    if target.kind == Kind.CGROUP:
        with suppress(OSError):  # those that have no room are looked at when they next do something
            for tid in target.threads():
                libbpf.update(maps["cb_seeded"].fd, tid, b"\1")
    if target.kind != Kind.TREE:
        return 0
    return seed(
        target,
        lambda pid: libbpf.update(members, pid, (1).to_bytes(8, "little")),
        lambda pid: libbpf.delete(members, pid.to_bytes(4, "little")),
    )
