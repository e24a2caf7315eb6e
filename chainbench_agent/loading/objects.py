"""The object that the compiler makes of a unit, as plain data: the code of its programs, the shapes of its maps.

Objects are cached in files: the same text, for the same kernel and with the same compiler, is not compiled again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = 1  # raise it when the same request must give another object
CACHED_OBJECTS = 8
"""Objects that are cached for a header tree: an agent needs one for each choice of modules and options."""

_INSTRUCTION = struct.Struct("=BBhi")  # struct bpf_insn
_LOAD_64 = 0x18  # a constant of two instructions; a map, if a source is named
_MAP_FD = 1 << 4


class MapShape(NamedTuple):
    """The arguments of BPF_MAP_CREATE.  `value_size` is that of one CPU's value."""

    name: str
    type: int
    key_size: int
    value_size: int
    entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class Object:
    """`programs`: C function → its instructions, in which a map is its number in `maps`."""

    programs: Mapping[str, bytes]
    maps: tuple[MapShape, ...]
    bcc_version: str

    def as_json(self) -> dict[str, Any]:
        programs = {name: base64.b64encode(code).decode() for name, code in self.programs.items()}
        return {"programs": programs, "maps": self.maps, "bcc_version": self.bcc_version}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Object:
        programs = {name: base64.b64decode(code) for name, code in data["programs"].items()}
        return cls(programs, tuple(MapShape(*shape) for shape in data["maps"]), data["bcc_version"])


def with_maps(code: bytes, of: Mapping[int, int]) -> bytes:
    """The same instructions with each map `m` replaced by `of[m]`: numbers by descriptors, or the reverse."""
    changed = bytearray(code)
    for place, (operation, registers, offset, constant) in enumerate(_INSTRUCTION.iter_unpack(code)):
        if operation == _LOAD_64 and registers & 0xF0 == _MAP_FD:
            _INSTRUCTION.pack_into(changed, 8 * place, operation, registers, offset, of[constant])
    return bytes(changed)


def place_of(header_tree: Path, *made_of: object) -> Path | None:
    """The file that caches the object made of this; None without BCC, whose version is part of the name.

    The tree's name identifies the kernel, by the digest of its BTF and its release.
    """
    spec = find_spec("bcc")
    if spec is None or spec.origin is None:
        return None
    try:
        compiler = Path(spec.origin).with_name("version.py").read_bytes()
    except OSError:
        return None
    digest = hashlib.sha256(repr((FORMAT, compiler, header_tree.name, *made_of)).encode()).hexdigest()
    return header_tree / "objects" / digest[:32]


def read(place: Path) -> Object | None:
    """The object in a file; None if there is none, if it is damaged, or if another user wrote it."""
    try:
        with place.open("rb") as file:
            if os.fstat(file.fileno()).st_uid not in (0, os.geteuid()):
                return None
            digest, _, data = file.read().partition(b"\n")
        if hashlib.sha256(data).hexdigest().encode() != digest:
            return None
        os.utime(place)  # the least recently used ones are removed
        return Object.from_json(json.loads(data))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def store(place: Path, found: Object) -> None:
    """Write the object, whole or not at all; if that fails, it is compiled again the next time."""
    data = json.dumps(found.as_json()).encode()
    with suppress(OSError):
        place.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".", delete=False) as file:
            file.write(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
        Path(file.name).replace(place)
        cached = sorted(place.parent.iterdir(), key=lambda path: path.stat().st_mtime)
        for old in cached[:-CACHED_OBJECTS]:
            old.unlink(missing_ok=True)
