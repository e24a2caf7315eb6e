"""The types of C that BTF describes, with a class for each form."""

import enum
from dataclasses import dataclass
from typing import NamedTuple


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


RECORDS = (Kind.STRUCT, Kind.UNION)
ENUMS = (Kind.ENUM, Kind.ENUM64)
QUALIFIERS = (Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG)


@dataclass(frozen=True, slots=True)
class Type:
    """The attributes of every type.  `name` is empty for an anonymous type; type 0 is void and has no record."""

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
    """DATASEC: the global variables of a section, as (type id of the VAR, byte offset)."""

    size: int
    variables: tuple[tuple[int, int], ...]


def tag(named: Type) -> str:
    """The name of a type in C: `struct page`, `enum pid_type`, `gfp_t`."""
    return f"{keyword(named)} {named.name}".lstrip()


def keyword(named: Type) -> str:
    """The keyword before a type's name in C: struct, union or enum; empty for others."""
    match named:
        case Record(kind=kind):
            return kind.name.lower()
        case Forward(is_union=is_union):
            return "union" if is_union else "struct"
        case Enum():
            return "enum"
    return ""
