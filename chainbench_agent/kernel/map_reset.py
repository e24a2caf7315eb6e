"""Empties what must not stay from one run to the next.  Everything else only grows, and is read twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from chainbench_agent.bpf import libbpf
from chainbench_agent.catalog import Module
from chainbench_agent.kernel.reading import disk_records
from chainbench_agent.loading.loader import MapFd

_SHARED = (
    "cb_members",
    "cb_seeded",
    "cb_moves",
    "cb_cuts",
    "cb_interrupted",
    "cb_ended_threads",
    "cb_entered",
    "cb_disk_takers",
)


def empty(maps: Mapping[str, MapFd], modules: Iterable[Module]) -> dict[str, OSError]:
    """Empty all maps while nothing is attached.  Raises OSError for a shared map, with its name.

    Returns module → why, of the modules whose maps may still have something of the run before.
    """
    for name in _SHARED:
        _empty(maps, name, _delete_all)
    _empty(maps, "cb_kept", lambda table: libbpf.update(table.fd, 0, bytes(8)))
    _empty(maps, "cb_requests", _zero)
    unknown = None
    try:
        _empty(maps, "cb_disks", _zero)
    except OSError as error:  # what was counted by disk can then be of another disk
        unknown = error
    failed = {}
    for module in modules:
        try:
            if unknown and module.per_disk:
                raise unknown
            _empty_own(maps, module)
        except OSError as error:
            failed[module.name] = error
    return failed


def _empty_own(maps: Mapping[str, MapFd], module: Module) -> None:
    by_disk = {metric.name: metric for metric in module.per_disk}
    filled = {table.name for table in module.host_tables}
    for name in module.own_maps:
        if name in filled:
            continue
        own = f"{module.name}_{name}"
        if metric := by_disk.get(name):
            _empty(maps, own, partial(disk_records.clear, metric=metric))
        elif maps[own].entries > 1:
            _empty(maps, own, _delete_all)


def _empty(maps: Mapping[str, MapFd], name: str, how: Callable[[MapFd], None]) -> None:
    """Nothing happens where this unit has no such map."""
    if name in maps:
        try:
            how(maps[name])
        except OSError as error:
            raise OSError(error.errno, f"{name}: {error.strerror}") from error


def _delete_all(table: MapFd) -> None:
    for key in libbpf.keys(table.fd, table.key_size):
        libbpf.delete(table.fd, key)


def _zero(table: MapFd) -> None:
    libbpf.clear_array(table.fd, table.entries * table.value_size)
