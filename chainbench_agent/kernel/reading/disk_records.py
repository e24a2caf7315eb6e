"""Reads and clears what is counted by disk: records in arrays, at an index that a disk gets when a run first sees it.

probes/request.h gives the indexes; here they are read, and given back between two runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from chainbench_agent.abi.c_struct import CStruct
from chainbench_agent.bpf import libbpf
from chainbench_agent.catalog import Module, PerDisk
from chainbench_agent.loading.loader import MapFd

DISK = CStruct(device="Q", depth="Q")  # struct cb_disk of probes/request.h
TAKEN = 1 << 32  # CB_DISK_TAKEN
DISKSTATS = Path("/proc/diskstats")
BLOCK_DEVICES = Path("/sys/dev/block")


def finished_ios() -> dict[int, int]:
    """Disk → reads, writes and discards that have finished on it since boot, as /proc/diskstats has them.

    Documentation/admin-guide/iostats.rst: the numbers behind the name are reads, …, writes at 4, …, discards at 11.
    """
    found = {}
    for line in DISKSTATS.read_text().splitlines():
        major, minor, _name, *fields = line.split()
        finished = sum(int(fields[i]) for i in (0, 4, 11) if i < len(fields))
        if finished and not (BLOCK_DEVICES / f"{major}:{minor}" / "partition").exists():
            found[int(major) << 20 | int(minor)] = finished
    return found


def numbers(cells: bytes) -> dict[int, int]:
    """Index → number of the disk, of those that were seen.  `cells`: the map `cb_disks`."""
    devices = (device for device, _depth in DISK.iter_unpack(cells))
    return {index: device ^ TAKEN for index, device in enumerate(devices) if device}


class Disks:
    """The disks of one sample, for all modules: looked up when the first of them asks.  Raises OSError then."""

    def __init__(self, maps: Mapping[str, MapFd]) -> None:
        self._maps = maps

    @cached_property
    def _seen(self) -> dict[int, int]:
        table = self._maps["cb_disks"]
        return numbers(libbpf.read_array(table.fd, table.entries * table.value_size))

    def read(self, module: Module) -> dict[str, dict[bytes, bytes]]:
        """Metric → disk → its records."""
        tables = {metric: self._maps[f"{module.name}_{metric.name}"] for metric in module.per_disk}
        return {metric.name: _records(table, metric, self._seen) for metric, table in tables.items()}


def clear(table: MapFd, metric: PerDisk) -> None:
    """Clear the records of all disks, not only of those that the last run saw: clearing may have failed before it."""
    nothing = bytes(_size(table, metric))
    for index in range(table.entries):
        libbpf.update(table.fd, index, nothing)


def _records(table: MapFd, metric: PerDisk, seen: Mapping[int, int]) -> dict[bytes, bytes]:
    size = _size(table, metric)
    return {number.to_bytes(4, "little"): libbpf.lookup(table.fd, index, size) for index, number in seen.items()}


def _size(table: MapFd, metric: PerDisk) -> int:
    """The size of a disk's records; all their fields are words."""
    return table.value_size if metric.shared else table.value_size * libbpf.possible_cpus()
