"""What must not stay from one run to the next.  Everything else only grows, and is read twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from chainbench_agent.bpf import libbpf
from chainbench_agent.kernel import disks
from chainbench_agent.loading.loader import MapFd
from chainbench_agent.spec import Module

_SHARED = ("cb_members", "cb_ended_threads", "cb_entered", "cb_disk_takers")


def empty(maps: Mapping[str, MapFd], modules: Iterable[Module]) -> None:
    """Nothing is attached meanwhile.  Raises OSError."""
    modules = tuple(modules)
    for name in _keyed(maps, modules):
        table = maps[name]
        for key in libbpf.keys(table.fd, table.key_size):
            libbpf.delete(table.fd, key)
    libbpf.update(maps["cb_kept"].fd, 0, bytes(8))
    if requests := maps.get("cb_requests"):
        libbpf.clear(requests.fd, requests.entries * requests.value_size)
    disks.clear(maps, modules)


def _keyed(maps: Mapping[str, MapFd], modules: tuple[Module, ...]) -> list[str]:
    per_disk = {metric.name for module in modules for metric in module.per_disk}
    declared = [f"{m.name}_{name}" for m in modules for name in m.own_maps if name not in per_disk]
    own = [name for name in declared if maps[name].entries > 1]
    return [*own, *(name for name in _SHARED if name in maps)]
