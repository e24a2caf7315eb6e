"""The binary format of BTF: finds the records, and decodes one into a type.

The format is described in Linux's Documentation/bpf/btf.rst.  A record is a fixed head and a tail, whose length
follows from the head.  So `index_records` passes over 100,000 records without decoding them; `Decoder.decode` decodes
one.  The byte order is this machine's, as a kernel exports only its own types.
"""

import struct
from typing import NamedTuple

from chainbench_agent.headers.btf_types import (
    Array,
    Enum,
    Forward,
    Kind,
    Member,
    Prototype,
    Record,
    Reference,
    Scalar,
    Section,
    Type,
)

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")  # magic, version, flags, own length; offset and length of types, of strings
_HEAD = struct.Struct("=III")  # name, info, size or target
_WORD = struct.Struct("=I")
_ARRAY = struct.Struct("=III")
_MEMBER = struct.Struct("=III")
_PARAM = struct.Struct("=II")
_VARIABLE = struct.Struct("=III")  # type, offset, size
_ENUM32 = struct.Struct("=II")
_ENUM64 = struct.Struct("=III")


# Bytes of the tail: those of a record, and those of each of its elements.
_ONCE = {Kind.INT: 4, Kind.ARRAY: 12, Kind.VAR: 4, Kind.DECL_TAG: 4}
_EACH = {
    Kind.STRUCT: 12,
    Kind.UNION: 12,
    Kind.ENUM: 8,
    Kind.FUNC_PROTO: 8,
    Kind.DATASEC: 12,
    Kind.ENUM64: 12,
}


class Sections(NamedTuple):
    """Offsets at which the records and the strings begin and end."""

    types: int
    types_end: int
    strings: int
    strings_end: int


def find_sections(data: bytes) -> Sections:
    """Reads the header.  Raises ValueError, whose text completes the sentence "The file …"."""
    if len(data) < _HEADER.size:
        raise ValueError("is too short to be BTF")
    magic, version, _, header, types, types_size, strings, strings_size = _HEADER.unpack_from(data)
    if magic == int.from_bytes(_MAGIC.to_bytes(2, "big"), "little"):
        raise ValueError("is BTF from a machine of the other byte order")
    if magic != _MAGIC:
        raise ValueError("is not BTF")
    if version != 1:
        raise ValueError(f"is BTF of version {version}, and only version 1 is known here")
    if len(data) < header + max(types + types_size, strings + strings_size):
        raise ValueError("is truncated")
    return Sections(header + types, header + types + types_size, header + strings, header + strings + strings_size)


class Index(NamedTuple):
    """The position, name and kind of each record, by type id; type 0 is void."""

    offsets: list[int]
    names: list[int]
    kinds: list[int]


def index_records(data: bytes, sections: Sections) -> Index:
    """Finds every record.  Raises ValueError, as `find_sections` does, if one is malformed."""
    once, each = ([tail.get(Kind(k), 0) if k else 0 for k in range(len(Kind) + 1)] for tail in (_ONCE, _EACH))
    index = Index([0], [0], [0])
    add_offset, add_name, add_kind = index.offsets.append, index.names.append, index.kinds.append
    unpack, head_size = _HEAD.unpack_from, _HEAD.size
    offset, end = sections.types, sections.types_end
    try:
        while offset < end:
            name, info, _ = unpack(data, offset)
            kind = info >> 24 & 31
            add_offset(offset)
            add_name(name)
            add_kind(kind)
            offset += head_size + once[kind] + each[kind] * (info & 0xFFFF)
    except (struct.error, IndexError):
        raise ValueError(f"has a record at byte {offset} of no known kind") from None
    if offset != end:
        raise ValueError("is truncated within a record")
    return index


class Decoder:
    """Decodes records into types.  It has the strings, because every record refers to names."""

    def __init__(self, data: bytes, strings: bytes) -> None:
        self._data = data
        self._strings = strings

    def name(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def enumerator_names(self, offset: int) -> list[int]:
        """Offsets of the names of the enumerators of the ENUM or ENUM64 at `offset`."""
        _, info, _ = _HEAD.unpack_from(self._data, offset)
        layout = _ENUM32 if info >> 24 & 31 == Kind.ENUM else _ENUM64
        return [row[0] for row in self._tail(offset, layout, info & 0xFFFF)]

    def decode(self, type_id: int, offset: int) -> Type:
        name_offset, info, third = _HEAD.unpack_from(self._data, offset)
        kind, count, flag = Kind(info >> 24 & 31), info & 0xFFFF, bool(info >> 31)
        head = (type_id, kind, self.name(name_offset) if name_offset else "")
        found: Type
        match kind:
            case Kind.INT | Kind.FLOAT:
                found = Scalar(*head, third)
            case Kind.ARRAY:
                element, _, length = _ARRAY.unpack_from(self._data, offset + _HEAD.size)
                found = Array(*head, element, length)
            case Kind.STRUCT | Kind.UNION:
                found = Record(*head, third, self._members(offset, count, with_bits=flag))
            case Kind.ENUM | Kind.ENUM64:
                found = Enum(*head, third, self._values(offset, kind, count, signed=flag))
            case Kind.FWD:
                found = Forward(*head, flag)
            case Kind.FUNC_PROTO:
                found = Prototype(*head, third, tuple(row[1] for row in self._tail(offset, _PARAM, count)))
            case Kind.DATASEC:
                rows = self._tail(offset, _VARIABLE, count)
                found = Section(*head, third, tuple((row[0], row[1]) for row in rows))
            case _:
                found = Reference(*head, third)
        return found

    def _tail(self, offset: int, layout: struct.Struct, count: int) -> list[tuple[int, ...]]:
        start = offset + _HEAD.size
        return list(layout.iter_unpack(memoryview(self._data)[start : start + layout.size * count]))

    def _members(self, offset: int, count: int, *, with_bits: bool) -> tuple[Member, ...]:
        rows = self._tail(offset, _MEMBER, count)
        if not with_bits:
            return tuple(Member(self.name(name), type_id, at, 0) for name, type_id, at in rows)
        return tuple(Member(self.name(name), type_id, at & 0xFFFFFF, at >> 24) for name, type_id, at in rows)

    def _values(self, offset: int, kind: Kind, count: int, *, signed: bool) -> tuple[tuple[str, int], ...]:
        if kind == Kind.ENUM:
            width, rows = 32, [(name, value) for name, value in self._tail(offset, _ENUM32, count)]
        else:
            width, rows = (
                64,
                [(name, low | high << 32) for name, low, high in self._tail(offset, _ENUM64, count)],
            )
        wrap = 1 << width if signed else 0
        return tuple((self.name(name), value - wrap if value >> width - 1 else value) for name, value in rows)
