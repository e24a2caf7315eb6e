"""From an object to descriptors: its maps are created, its programs are loaded, and the verifier's words are kept."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from chainbench_agent.bpf import libbpf
from chainbench_agent.catalog import Kind
from chainbench_agent.errors import LoaderError
from chainbench_agent.loading.objects import MapShape, Object, with_maps

_KPROBE, _PERF_EVENT, _RAW_TRACEPOINT, _TRACING = 2, 7, 17, 26  # enum bpf_prog_type
_TYPED_RAW_TRACEPOINT, _FENTRY, _FEXIT = 23, 24, 25  # enum bpf_attach_type
_TYPES: dict[Kind, tuple[int, int]] = {
    "raw_tracepoint": (_RAW_TRACEPOINT, 0),
    "tp_btf": (_TRACING, _TYPED_RAW_TRACEPOINT),
    "fentry": (_TRACING, _FENTRY),
    "fexit": (_TRACING, _FEXIT),
    "kprobe": (_KPROBE, 0),
    "kretprobe": (_KPROBE, 0),
    "uprobe": (_KPROBE, 0),
    "uretprobe": (_KPROBE, 0),
    "perf": (_PERF_EVENT, 0),
}


class Wanted(NamedTuple):
    """A program to be loaded.  `attach_type_id`: what fentry, fexit and tp_btf attach to, by its number in the BTF."""

    name: str
    kind: Kind
    attach_type_id: int = 0


@dataclass(frozen=True, slots=True)
class MapFd:
    """A loaded map.  `value_size` is that of one CPU's value, as declared."""

    fd: int
    key_size: int
    value_size: int
    entries: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """Descriptors by name; `failed` says for each program that did not load what the kernel said."""

    programs: dict[str, int]
    maps: dict[str, MapFd]
    failed: dict[str, str]
    bcc_version: str

    def take_programs(self) -> dict[str, int]:
        """Those that nobody has taken yet; who takes them closes them."""
        taken = dict(self.programs)
        self.programs.clear()
        return taken


def load(found: Object, wanted: Iterable[Wanted]) -> Loaded:
    """Raises LoaderError if the kernel refuses a map; a program that it refuses is among `failed`."""
    maps: dict[str, MapFd] = {}
    try:
        for shape in found.maps:
            maps[shape.name] = _create(shape)
    except OSError as error:
        for table in maps.values():
            os.close(table.fd)
        raise LoaderError(f"the kernel refuses a map: {error.strerror or error}") from None
    descriptors = {number: maps[shape.name].fd for number, shape in enumerate(found.maps)}
    programs: dict[str, int] = {}
    failed: dict[str, str] = {}
    for program in wanted:
        code = with_maps(found.programs[program.name], descriptors)
        try:
            programs[program.name] = _load(program, code)
        except OSError as error:
            failed[program.name] = str(error.strerror)
    return Loaded(programs, maps, failed, found.bcc_version)


def _create(shape: MapShape) -> MapFd:
    sizes = (shape.key_size, shape.value_size, shape.entries)
    fd = libbpf.create_map(shape.name, shape.type, sizes, shape.flags)
    return MapFd(fd, shape.key_size, shape.value_size, shape.entries)


def _load(program: Wanted, code: bytes) -> int:
    """Raises OSError whose words are the verifier's, or else the kernel's."""
    kind = (*_TYPES[program.kind], program.attach_type_id)
    try:
        return libbpf.load_program(program.name, code, kind)
    except OSError:
        log = libbpf.VerifierLog()
    try:
        return libbpf.load_program(program.name, code, kind, log)
    except OSError as error:
        number = error.errno or 0
        raise OSError(number, verdict(log.read()) or os.strerror(number)) from None


def verdict(log: str) -> str:
    """The verifier's last words before its statistics: the ones that say why."""
    lines = [line for line in log.splitlines() if line and not line.startswith("processed ")]
    return lines[-1] if lines else ""
