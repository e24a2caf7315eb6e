"""Writes BTF for tests, independently of chainbench_agent.headers.btf_format."""

import struct
from dataclasses import dataclass, field

from chainbench_agent.headers.btf import Btf
from chainbench_agent.headers.btf_types import Kind


@dataclass
class Blob:
    """Every method adds one type and returns its id."""

    strings: bytearray = field(default_factory=lambda: bytearray(1))
    records: list[bytes] = field(default_factory=list)

    def add(self, kind, name="", third=0, *, count=0, flag=False, tail=b""):  # noqa: PLR0913 - as many as the format has
        info = flag << 31 | kind << 24 | count
        self.records.append(struct.pack("=III", self.string(name), info, third) + tail)
        return len(self.records)

    def string(self, name):
        known = self.strings.find(b"\0" + name.encode() + b"\0")
        if known >= 0:
            return known + 1 if name else 0
        self.strings += name.encode() + b"\0"
        return len(self.strings) - len(name) - 1

    def int(self, name, size):
        return self.add(Kind.INT, name, size, tail=struct.pack("=I", size * 8))

    def ptr(self, target):
        return self.add(Kind.PTR, third=target)

    def typedef(self, name, target):
        return self.add(Kind.TYPEDEF, name, target)

    def array(self, element, length):
        return self.add(Kind.ARRAY, tail=struct.pack("=III", element, 0, length))

    def record(self, kind, name, size, *members):
        """Each member is (name, type, bit offset), followed by its width if it is a bit-field."""
        with_bits = any(len(member) == 4 for member in members)
        tail = b""
        for member, type_id, offset, *bits in members:
            tail += struct.pack("=III", self.string(member), type_id, offset | (bits[0] << 24 if bits else 0))
        return self.add(kind, name, size, count=len(members), flag=with_bits, tail=tail)

    def struct(self, name, size, *members):
        return self.record(Kind.STRUCT, name, size, *members)

    def union(self, name, size, *members):
        return self.record(Kind.UNION, name, size, *members)

    def enum(self, name, size, **values):
        signed = any(value < 0 for value in values.values())
        rows = [(self.string(key), value & 0xFFFFFFFF) for key, value in values.items()]
        tail = b"".join(struct.pack("=II", *row) for row in rows)
        return self.add(Kind.ENUM, name, size, count=len(rows), flag=signed, tail=tail)

    def enum64(self, name, **values):
        signed = any(value < 0 for value in values.values())
        rows = [(self.string(key), value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF) for key, value in values.items()]
        tail = b"".join(struct.pack("=III", *row) for row in rows)
        return self.add(Kind.ENUM64, name, 8, count=len(rows), flag=signed, tail=tail)

    def proto(self, result, *params):
        tail = b"".join(struct.pack("=II", 0, param) for param in params)
        return self.add(Kind.FUNC_PROTO, third=result, count=len(params), tail=tail)

    def data(self):
        types = b"".join(self.records)
        sizes = (0, len(types), len(types), len(self.strings))
        return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, *sizes) + types + self.strings

    def btf(self):
        return Btf(self.data())
