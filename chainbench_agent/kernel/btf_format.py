"""BTF, the kernel's own description of its types, record by record.

The format is Linux's Documentation/bpf/btf.rst.
A record is a fixed head, then a tail whose length follows from the head, so `record_offsets` can walk
100,000 of them without decoding any; `decode` does one at a time.
"""

import enum
import struct
from dataclasses import dataclass
from typing import NamedTuple

HEADER = struct.Struct("=HBBIIIII")  # magic, version, flags, header length, then offset and length of two sections
MAGIC = 0xEB9F

_HEAD = struct.Struct("=III")  # name, info, size or target
_WORD = struct.Struct("=I")
_ARRAY = struct.Struct("=III")
_MEMBER = struct.Struct("=III")
_PARAM = struct.Struct("=II")
_ENUM32 = struct.Struct("=II")
_ENUM64 = struct.Struct("=III")


class Kind(enum.IntEnum):
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# Bytes of tail: once per record, and once per element of a record.
_ONCE = {Kind.INT: 4, Kind.ARRAY: 12, Kind.VAR: 4, Kind.DECL_TAG: 4}
_EACH = {
    Kind.STRUCT: 12,
    Kind.UNION: 12,
    Kind.ENUM: 8,
    Kind.FUNC_PROTO: 8,
    Kind.DATASEC: 12,
    Kind.ENUM64: 12,
}


@dataclass(frozen=True, slots=True)
class Type:
    """What every type has. `name` is empty for an anonymous one; type 0 is void and has no record."""

    id: int
    kind: Kind
    name: str


@dataclass(frozen=True, slots=True)
class Scalar(Type):
    """INT or FLOAT."""

    size: int


@dataclass(frozen=True, slots=True)
class Reference(Type):
    """PTR, TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG, FUNC, VAR, DECL_TAG: one step to `target`."""

    target: int


@dataclass(frozen=True, slots=True)
class Array(Type):
    element: int
    count: int


class Member(NamedTuple):
    """`bits` is the width of a bit-field, 0 for any other member."""

    name: str
    type_id: int
    bit_offset: int
    bits: int


@dataclass(frozen=True, slots=True)
class Record(Type):
    """STRUCT or UNION."""

    size: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Enum(Type):
    """ENUM or ENUM64."""

    size: int
    values: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Forward(Type):
    is_union: bool


@dataclass(frozen=True, slots=True)
class Prototype(Type):
    """`params` are type ids; a last 0 stands for `...`."""

    result: int
    params: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Section(Type):
    """DATASEC: global variables, which nothing here asks about."""

    size: int


class Index(NamedTuple):
    """Three columns, indexed by type id; row 0 is void."""

    offsets: list[int]
    names: list[int]
    kinds: list[int]


def index_records(data: bytes, start: int, end: int) -> Index:
    """Find every record between two offsets. Raises struct.error or IndexError if the section is malformed."""
    once, each = ([tails.get(Kind(k), 0) if k else 0 for k in range(len(Kind) + 1)] for tails in (_ONCE, _EACH))
    index = Index([0], [0], [0])
    add_offset, add_name, add_kind = index.offsets.append, index.names.append, index.kinds.append
    unpack, head_size = _HEAD.unpack_from, _HEAD.size
    offset = start
    while offset < end:
        name, info, _ = unpack(data, offset)
        kind = info >> 24 & 31
        add_offset(offset)
        add_name(name)
        add_kind(kind)
        offset += head_size + once[kind] + each[kind] * (info & 0xFFFF)
    if offset != end:
        raise struct.error("the last record ends outside its section")
    return index


class Decoder:
    """Turns records into types. Holds the strings, because every record has names."""

    def __init__(self, data: bytes, strings: bytes) -> None:
        self._data = data
        self._strings = strings

    def name(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def enumerator_names(self, offset: int) -> list[int]:
        """Where the names of the enumerators of the ENUM or ENUM64 at `offset` begin."""
        _, info, _ = _HEAD.unpack_from(self._data, offset)
        layout = _ENUM32 if info >> 24 & 31 == Kind.ENUM else _ENUM64
        return [row[0] for row in self._tail(offset, layout, info & 0xFFFF)]

    def decode(self, type_id: int, offset: int) -> Type:
        name_offset, info, third = _HEAD.unpack_from(self._data, offset)
        kind, count, flag = Kind(info >> 24 & 31), info & 0xFFFF, bool(info >> 31)
        head = (type_id, kind, self.name(name_offset) if name_offset else "")
        match kind:
            case Kind.INT | Kind.FLOAT:
                return Scalar(*head, third)
            case Kind.ARRAY:
                element, _, length = _ARRAY.unpack_from(self._data, offset + _HEAD.size)
                return Array(*head, element, length)
            case Kind.STRUCT | Kind.UNION:
                return Record(*head, third, self._members(offset, count, flag))
            case Kind.ENUM | Kind.ENUM64:
                return Enum(*head, third, self._values(offset, kind, count, flag))
            case Kind.FWD:
                return Forward(*head, flag)
            case Kind.FUNC_PROTO:
                return Prototype(*head, third, tuple(row[1] for row in self._tail(offset, _PARAM, count)))
            case Kind.DATASEC:
                return Section(*head, third)
            case _:
                return Reference(*head, third)

    def _tail(self, offset: int, layout: struct.Struct, count: int) -> list[tuple[int, ...]]:
        start = offset + _HEAD.size
        return list(layout.iter_unpack(memoryview(self._data)[start : start + layout.size * count]))

    def _members(self, offset: int, count: int, flag: bool) -> tuple[Member, ...]:  # noqa: FBT001 - as the format has it
        rows = self._tail(offset, _MEMBER, count)
        if not flag:
            return tuple(Member(self.name(name), type_id, at, 0) for name, type_id, at in rows)
        return tuple(Member(self.name(name), type_id, at & 0xFFFFFF, at >> 24) for name, type_id, at in rows)

    def _values(self, offset: int, kind: Kind, count: int, signed: bool) -> tuple[tuple[str, int], ...]:  # noqa: FBT001
        if kind == Kind.ENUM:
            rows = ((name, value, 32) for name, value in self._tail(offset, _ENUM32, count))
        else:
            rows = ((name, low | high << 32, 64) for name, low, high in self._tail(offset, _ENUM64, count))
        return tuple(
            (self.name(name), value - (1 << width) if signed and value >> width - 1 else value)
            for name, value, width in rows
        )
