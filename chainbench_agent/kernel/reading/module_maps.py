"""Reads the maps of one module: its per-CPU struct, its hashes, its records of CPUs.  Raises OSError."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from chainbench_agent.bpf import libbpf
from chainbench_agent.catalog import Module
from chainbench_agent.evidence.sample import Value
from chainbench_agent.kernel.reading import map_decoding
from chainbench_agent.loading.loader import MapFd

_WORD = 8


def values(maps: Mapping[str, MapFd], module: Module, run: int) -> dict[str, Value]:
    """Metric → value, of all but what is counted by disk; and the declared PerCpu maps, CPU → record."""
    counted = map_decoding.decode(module, per_cpu(maps[f"cb_{module.name}"]), libbpf.possible_cpus(), run)
    return counted | _hashes(maps, module) | _cpu_records(maps, module)


def per_cpu(table: MapFd) -> bytes:
    """The first element of a per-CPU array: one value after the other, each padded to words."""
    return libbpf.lookup_all_cpus(table.fd, table.value_size)


def cpu_records(raw: bytes, size: int) -> dict[bytes, bytes]:
    """CPU (4 bytes) → its record of that size; `raw`: as `per_cpu` answers."""
    stride = -(-size // _WORD) * _WORD
    return {
        cpu.to_bytes(4, "little"): raw[start : start + size] for cpu, start in enumerate(range(0, len(raw), stride))
    }


def _cpu_records(maps: Mapping[str, MapFd], module: Module) -> dict[str, dict[bytes, bytes]]:
    tables = {record.name: maps[f"{module.name}_{record.name}"] for record in module.per_cpu_records}
    return {name: cpu_records(per_cpu(table), table.value_size) for name, table in tables.items()}


def _hashes(maps: Mapping[str, MapFd], module: Module) -> dict[str, dict[bytes, bytes]]:
    found = {}
    for keyed in module.keyed:
        table = maps[f"{module.name}_{keyed.name}"]
        cpus = libbpf.possible_cpus() if keyed.per_cpu else 1
        entries = libbpf.items(table.fd, table.key_size, table.value_size * cpus)
        found[keyed.name] = _summed(entries) if keyed.per_cpu else entries
    return found


def _summed(entries: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """A hash of u64 that has one for each CPU → the same with their sum."""
    return {
        key: sum(struct.unpack(f"={len(value) // _WORD}Q", value)).to_bytes(_WORD, "little")
        for key, value in entries.items()
    }
