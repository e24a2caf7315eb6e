"""Writes types of the BTF as C declarations, in an order that a compiler accepts.

A type that a struct contains is defined before it; a type that it points to is only declared.
"""

import re
from collections.abc import Iterator
from itertools import count

from chainbench_agent.headers.btf import Btf
from chainbench_agent.headers.btf_types import (
    ENUMS,
    QUALIFIERS,
    RECORDS,
    Array,
    Enum,
    Forward,
    Kind,
    Member,
    Prototype,
    Record,
    Reference,
    Type,
    keyword,
)
from chainbench_agent.headers.c_layout import Gap, Layout

_MODES = {1: "QI", 2: "HI", 8: "DI"}  # of enums whose size is not that of int
_BUILT_IN = {"__builtin_va_list"}  # clang has it, and refuses a second definition


class CWriter:
    """Collects definitions: call `define` for each type that is needed, then read `text`.

    If several types have the same name, the first has it in C, the next is called `name___2`, and so on.
    """

    def __init__(self, btf: Btf) -> None:
        self.structs: list[str] = []
        """Names of the structs and unions that were defined, in order."""
        self.constants: set[str] = set()
        """Names of the enumerators that were written."""
        self._btf = btf
        self._layout = Layout(btf)
        self._whole: dict[int, bool] = {}
        self._written: set[int] = set()
        self._forwards: set[str] = set()
        self._definitions: list[str] = []
        self._typedefs = {btf.type(type_id).name for type_id in btf.ids(Kind.TYPEDEF)}

    @property
    def text(self) -> str:
        return "\n".join([*(f"{name};" for name in sorted(self._forwards)), *self._definitions, ""])

    def declare(self, struct: str) -> None:
        """Declares the name of a struct, whether or not this kernel has it."""
        self._forwards.add(f"struct {struct}")

    def define(self, type_id: int) -> None:
        """Defines this type, and first all types that it contains."""
        self._need(type_id, whole=True)

    def _need(self, type_id: int, *, whole: bool) -> None:
        """Defines the type if `whole`, else at least declares its name."""
        if not type_id or self._whole.get(type_id) in (True, whole):
            return
        self._whole[type_id] = whole
        found = self._btf.type(type_id)
        match found:
            case Reference(kind=Kind.TYPEDEF):
                self._need(found.target, whole=False)
                self._write_once(found)  # before its target's members, which may use it
                self._need(found.target, whole=whole)
            case Reference():
                self._need(found.target, whole=whole and found.kind in QUALIFIERS)
            case Array():
                self._need(found.element, whole=True)
            case Prototype():
                for used in (*found.params, found.result):
                    self._need(used, whole=False)
            case Record():
                self._need_record(found, whole=whole)
            case Enum():
                self._write_once(found)
            case Forward():
                self._forwards.add(self._spell(found))

    def _need_record(self, record: Record, *, whole: bool) -> None:
        """An anonymous record is written where it is used, so the types that it contains must always be defined."""
        if record.name:
            self._forwards.add(self._spell(record))
        if whole or not record.name:
            for member in record.members:
                self._need(member.type_id, whole=True)
        if whole and record.name:
            self._write_once(record)

    def _write_once(self, found: Type) -> None:
        if found.id in self._written:
            return
        self._written.add(found.id)
        match found:
            case Record():
                self.structs.append(self._name(found))
                self._definitions.append(f"{self._spell(found)} {self._body(found, count(1))};")
            case Enum():
                self._definitions.append(f"{self._spell(found)} {self._enumerators(found)};")
            case Reference(target=target) if found.name not in _BUILT_IN:
                self._definitions.append(f"typedef {self._declare(target, self._name(found))};")

    def _declare(self, type_id: int, name: str, pads: Iterator[int] | None = None, depth: int = 0) -> str:
        def spell(found: Type) -> str:
            if isinstance(found, Record) and not found.name:
                return f"{keyword(found)} {self._body(found, pads or count(1), depth)}"
            return self._spell(found)

        return self._btf.declare(type_id, name, spell)

    def _body(self, record: Record, pads: Iterator[int], depth: int = 0) -> str:
        """`{ … }` with every gap as a named member.  `pads` numbers these, as nested bodies share one name space."""
        indent = "\t" * (depth + 1)
        lines = (self._part(part, pads, depth + 1) for part in self._layout.parts(record))
        inside = "".join(f"{indent}{line};\n" for line in lines)
        packed = " __attribute__((packed))" if self._layout.is_packed(record) else ""
        return f"{{\n{inside}{indent[1:]}}}{packed}"

    def _part(self, part: Member | Gap, pads: Iterator[int], depth: int) -> str:
        match part:
            case Gap(bits=0):
                return "unsigned char : 0"
            case Gap(bits=bits) if bits % 8:
                return f"unsigned char cb_pad_{next(pads)} : {bits}"
            case Gap(bits=bits):
                return f"unsigned char cb_pad_{next(pads)}[{bits // 8}]"
            case Member(name="", type_id=type_id, bits=0) if isinstance(found := self._btf.resolve(type_id), Record):
                # also if it has a tag, as -fms-extensions allows: a mere `struct tag;` would not declare a member
                return f"{keyword(found)} {self._body(found, pads, depth)}"
            case Member(name=name, type_id=type_id, bits=bits):
                declared = self._declare(type_id, name, pads, depth)
                return f"{declared} : {bits}" if bits else declared

    def _enumerators(self, enum: Enum) -> str:
        values = enum.values or ((f"cb_no_values_{enum.id}", 0),)  # C has no empty enum
        lines = "".join(f"\t{self._constant(name)} = {_literal(value)},\n" for name, value in values)
        mode = f" __attribute__((mode({_MODES[enum.size]})))" if enum.size in _MODES else ""
        return f"{{\n{lines}}}{mode}"

    def _constant(self, name: str) -> str:
        """A name for an enumerator that is not yet used.

        C has one name space for typedefs and the enumerators of all enums; the kernel has many.
        """
        free = name
        for nth in count(2):
            if free not in self.constants and free not in self._typedefs:
                break
            free = f"{name}___{nth}"
        self.constants.add(free)
        return free

    def _spell(self, found: Type) -> str:
        return f"{keyword(found)} {self._name(found)}".lstrip()

    def _name(self, found: Type) -> str:
        if not found.name:
            return f"cb_anonymous_{found.id}"
        if found.kind in (Kind.INT, Kind.FLOAT):
            return found.name
        kinds = (Kind.TYPEDEF,) if found.kind == Kind.TYPEDEF else (*RECORDS, *ENUMS)
        rivals = self._btf.same_name(found.id, *kinds)
        alike = (n for n, rival in enumerate(rivals) if keyword(self._btf.type(rival)) == keyword(found))
        nth = next(alike, len(rivals)) if isinstance(found, Forward) else rivals.index(found.id)
        name = re.sub(r"\W", "_", found.name)
        return f"{name}___{nth + 1}" if nth else name


def _literal(value: int) -> str:
    if value < 0:
        return f"{value}LL" if value < -(1 << 31) else str(value)
    return str(value) if value < 1 << 31 else f"{value}U" if value < 1 << 32 else f"{value}ULL"
