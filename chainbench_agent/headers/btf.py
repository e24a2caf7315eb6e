"""Queries to the kernel's BTF: offsets of members, arguments of tracepoints and functions, declarations in C.

The kernel exports its types in /sys/kernel/btf/vmlinux, so neither kernel headers nor bpftool are needed.
Nothing is parsed before the first query, and then only the types that it needs (btf_format.py).
"""

import hashlib
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Self

from chainbench_agent.errors import SetupError
from chainbench_agent.headers.btf_format import Decoder, Index, find_sections, index_records
from chainbench_agent.headers.btf_types import (
    ENUMS,
    QUALIFIERS,
    RECORDS,
    Array,
    Enum,
    Kind,
    Prototype,
    Record,
    Reference,
    Type,
    tag,
)

DEFAULT_PATH = "/sys/kernel/btf/vmlinux"


class BtfError(SetupError):
    """The BTF is absent or malformed."""


class Btf:
    """One BTF blob.  `origin` names it in errors.

    The constructor raises BtfError if the header is malformed, any query if a type is.
    """

    def __init__(self, data: bytes, origin: str = "the BTF") -> None:
        self._data = data
        self._origin = origin
        self._types: dict[int, Type] = {}
        try:
            self._sections = find_sections(data)
        except ValueError as error:
            raise self._error(error) from None

    @classmethod
    def load(cls, path: str | Path = DEFAULT_PATH) -> Self:
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise BtfError(
                f"{path} cannot be read ({error.strerror}): mount /sys, and boot a kernel built "
                "with CONFIG_DEBUG_INFO_BTF=y."
            ) from error
        return cls(data, str(path))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the raw bytes, in hex: equal types have equal digests."""
        return hashlib.sha256(self._data).hexdigest()

    def __len__(self) -> int:
        """How many types there are, void included: ids run from 0 to len - 1."""
        return len(self._index.offsets)

    def __iter__(self) -> Iterator[Type]:
        return (self.type(type_id) for type_id in range(1, len(self)))

    def ids(self, *kinds: Kind) -> Iterator[int]:
        return (type_id for type_id, kind in enumerate(self._index.kinds) if kind in kinds)

    def type(self, type_id: int) -> Type:
        """The type with this id.  Raises BtfError if there is none; 0 is void, which has no record."""
        found = self._types.get(type_id)
        if found is None:
            if not 0 < type_id < len(self):
                raise self._error(f"has no type {type_id}")
            try:
                found = self._decoder.decode(type_id, self._index.offsets[type_id])
            except (struct.error, ValueError):
                raise self._error(f"has a malformed type {type_id}") from None
            self._types[type_id] = found
        return found

    def find(self, name: str, *kinds: Kind) -> Type | None:
        """The first type of this name that is of one of `kinds` (any, if none is given)."""
        for type_id in self._ids_named(name):
            if not kinds or self._index.kinds[type_id] in kinds:
                return self.type(type_id)
        return None

    def find_enumerator(self, name: str) -> Enum | None:
        """The first enum, often an anonymous one, that declares the constant `name`."""
        enum = self._enumerators.get(self._string_offset(name))
        found = self.type(enum) if enum is not None else None
        return found if isinstance(found, Enum) else None

    def same_name(self, type_id: int, *kinds: Kind) -> list[int]:
        """Ids, in order, of the types of these kinds that have the same name as this type."""
        ids = self._by_name[self._index.names[type_id]]
        return [other for other in ids if self._index.kinds[other] in kinds]

    def resolve(self, type_id: int) -> Type | None:
        """The type behind typedefs and qualifiers; None is void."""
        while type_id:
            found = self.type(type_id)
            if not isinstance(found, Reference) or found.kind not in (*QUALIFIERS, Kind.TYPEDEF):
                return found
            type_id = found.target
        return None

    def record(self, name: str) -> Record | None:
        """The struct or union called `name`, or that a typedef of this name stands for."""
        named = self.find(name, *RECORDS) or self.find(name, Kind.TYPEDEF)
        found = self.resolve(named.id) if named else None
        return found if isinstance(found, Record) else None

    def size_of(self, struct: str) -> int | None:
        """Size in bytes of a struct or union; None if the kernel has none of that name."""
        record = self.record(struct)
        return record.size if record else None

    def member_offset(self, struct: str, path: str) -> int | None:
        """Byte offset of `member` or `member.member…`; None if it does not exist or is a bit-field."""
        record: Type | None = self.record(struct)
        total = 0
        for step in path.split("."):
            if not isinstance(record, Record):
                return None
            member = next((found for found in self._members(record, 0) if found[0] == step), None)
            if member is None:
                return None
            total += member[2]
            record = self.resolve(member[1])
        return total

    def tracepoint_args(self, name: str) -> tuple[str, ...] | None:
        """The types, in C, of the arguments of raw tracepoint `name`; None if this kernel has no such tracepoint."""
        typedef = self.find(f"btf_trace_{name}", Kind.TYPEDEF)
        pointer = self.resolve(typedef.id) if typedef else None
        args = self._prototype_args(pointer.target) if isinstance(pointer, Reference) else None
        return args[1:] if args else None  # the first, void *, is the tracepoint's own

    def function_args(self, name: str) -> tuple[str, ...] | None:
        """The types, in C, of the arguments of kernel function `name`; None if BTF does not know it."""
        function = self.find(name, Kind.FUNC)
        return self._prototype_args(function.target) if isinstance(function, Reference) else None

    def function_result(self, name: str) -> str:
        """The type, in C, of the result of kernel function `name`; "void" also if BTF does not know it."""
        function = self.find(name, Kind.FUNC)
        prototype = self.resolve(function.target) if isinstance(function, Reference) else None
        return self.declare(prototype.result, "", tag) if isinstance(prototype, Prototype) else "void"

    def declare(self, type_id: int, inner: str, spell: Callable[[Type], str]) -> str:
        """C declaration of `inner` with this type; `spell` writes the names of types that are not composed of others.

        Qualifiers are left out, so that a program may copy a struct and then fill it.
        """
        while type_id:
            found = self.type(type_id)
            match found:
                case Reference(kind=Kind.PTR, target=target):
                    type_id, inner = target, f"*{inner}"
                case Reference(kind=kind, target=target) if kind in QUALIFIERS:
                    type_id = target
                case Array(element=element, count=count):
                    type_id, inner = element, f"{_grouped(inner)}[{count}]"
                case Prototype(result=result, params=params):
                    declared = ", ".join(self.declare(p, "", spell) if p else "..." for p in params) or "void"
                    type_id, inner = result, f"{_grouped(inner)}({declared})"
                case _:
                    return f"{spell(found)} {inner}".rstrip()
        return f"void {inner}".rstrip()

    def _prototype_args(self, type_id: int) -> tuple[str, ...] | None:
        prototype = self.resolve(type_id)
        if not isinstance(prototype, Prototype):
            return None
        return tuple(self.declare(param, "", tag) for param in prototype.params if param)

    def _members(self, record: Record, base: int) -> Iterator[tuple[str, int, int]]:
        """(name, type id, byte offset), through anonymous structs and unions."""
        for name, type_id, bit_offset, bits in record.members:
            offset = base + bit_offset // 8
            if name and not bits:
                yield name, type_id, offset
            elif not name and isinstance(inner := self.resolve(type_id), Record):
                yield from self._members(inner, offset)

    @cached_property
    def _index(self) -> Index:
        try:
            return index_records(self._data, self._sections)
        except ValueError as error:
            raise self._error(error) from None

    @cached_property
    def _by_name(self) -> dict[int, list[int]]:
        ids = defaultdict(list)
        for type_id, name in enumerate(self._index.names):
            ids[name].append(type_id)
        return ids

    @cached_property
    def _enumerators(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for type_id in self.ids(*ENUMS):
            for name in self._decoder.enumerator_names(self._index.offsets[type_id]):
                found.setdefault(name, type_id)
        return found

    @cached_property
    def _strings(self) -> bytes:
        return self._data[self._sections.strings : self._sections.strings_end]

    @cached_property
    def _decoder(self) -> Decoder:
        return Decoder(self._data, self._strings)

    def _string_offset(self, name: str) -> int:
        """Offset of `name` in the strings, -1 if it is not there.  BTF contains every string once."""
        found = self._strings.find(b"\0" + name.encode() + b"\0")
        return found + 1 if found >= 0 else -1

    def _ids_named(self, name: str) -> list[int]:
        return self._by_name.get(self._string_offset(name), [])

    def _error(self, reason: object) -> BtfError:
        return BtfError(f"{self._origin} {reason}: use the BTF of this kernel, {DEFAULT_PATH}.")


def _grouped(inner: str) -> str:
    """`inner` with the parentheses that `*x` needs before `[3]` or `(int)`."""
    return f"({inner})" if inner.startswith("*") else inner
