"""Computes the padding of C structs, so that each member lies at the offset that BTF gives.

BCC's clang lays structs out for x86-64, then LLVM generates code for BPF.  The two agree on members of
natural size, but not on the integers wider than 64 bits that clang makes of anonymous bit-fields and of
long runs of named bit-fields: the members after them move, silently.  So every gap is a named member here, and no run
of bit-fields exceeds 64 bits.
"""

from collections.abc import Sequence
from typing import NamedTuple

from chainbench_agent.headers.btf import Btf
from chainbench_agent.headers.btf_types import Array, Enum, Kind, Member, Record, Reference, Scalar

_POINTER = 8  # bytes; both x86-64 and arm64
_RUN = 64  # bits


class Gap(NamedTuple):
    """Padding between members, in bits: less than 8, a multiple of 8, or 0, which only ends a run of bit-fields."""

    bits: int


class Layout:
    """Sizes and alignments of types in bytes, by the rules that x86-64 and arm64 share."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._alignments: dict[int, int] = {}

    def size(self, type_id: int) -> int:
        found = self._btf.resolve(type_id)
        match found:
            case Scalar(size=size) | Enum(size=size) | Record(size=size):
                return size
            case Array(element=element, count=count):
                return count * self.size(element)
        return _POINTER if isinstance(found, Reference) and found.kind == Kind.PTR else 0

    def alignment(self, type_id: int) -> int:
        known = self._alignments.get(type_id)
        if known is None:
            known = self._alignments[type_id] = self._alignment(type_id)
        return known

    def is_packed(self, record: Record) -> bool:
        """Whether C's rules without `packed` would move a member, or enlarge the struct."""
        return record.size % self._natural_alignment(record) != 0 or any(
            self._crosses_unit(member) if member.bits else member.bit_offset % (8 * self.alignment(member.type_id))
            for member in record.members
        )

    def parts(self, record: Record) -> Sequence[Member | Gap]:
        """The members in order, and the gaps between and after them.

        A layout with members that overlap, which C cannot express, becomes a single gap of the right size.
        """
        if record.kind == Kind.UNION:
            return self._union_parts(record)
        packed = self.is_packed(record)
        parts: list[Member | Gap] = []
        position = run = 0
        for member in record.members:
            natural = self._natural_offset(member, position, packed=packed)
            if natural > member.bit_offset:
                return _gaps(0, record.size * 8)
            if natural < member.bit_offset:
                gaps = _gaps(position, member.bit_offset)
                run = member.bit_offset if any(gap.bits >= 8 for gap in gaps) else run
                parts += gaps
            end = member.bit_offset + (member.bits or self.size(member.type_id) * 8)
            if not member.bits:
                run = end
            elif end - run > _RUN and member.bit_offset % 8 == 0:
                parts.append(Gap(0))
                run = member.bit_offset
            parts.append(member)
            position = end
        alignment = 1 if packed else self._natural_alignment(record)
        if _round_up(position, 8 * alignment) != record.size * 8:
            parts += _gaps(position, record.size * 8)
        return parts

    def _union_parts(self, record: Record) -> Sequence[Member | Gap]:
        widest = max((self.size(member.type_id) for member in record.members), default=0)
        alignment = 1 if self.is_packed(record) else self._natural_alignment(record)
        enough = _round_up(widest, alignment) == record.size
        return record.members if enough else (*record.members, Gap(record.size * 8))

    def _alignment(self, type_id: int) -> int:
        found = self._btf.resolve(type_id)
        match found:
            case Scalar(size=size) | Enum(size=size):
                return size
            case Array(element=element):
                return self.alignment(element)
            case Record():
                return 1 if self.is_packed(found) else self._natural_alignment(found)
        return self.size(type_id) or 1

    def _natural_alignment(self, record: Record) -> int:
        return max((self.alignment(member.type_id) for member in record.members), default=1)

    def _natural_offset(self, member: Member, position: int, *, packed: bool) -> int:
        """The bit at which C would place a member that follows `position`."""
        if not member.bits:
            return _round_up(position, 8 if packed else 8 * self.alignment(member.type_id))
        unit = 8 * self.size(member.type_id)
        fits = position // unit == (position + member.bits - 1) // unit
        return position if packed or fits else _round_up(position, unit)

    def _crosses_unit(self, member: Member) -> bool:
        unit = 8 * self.size(member.type_id)
        return member.bit_offset // unit != (member.bit_offset + member.bits - 1) // unit


def _gaps(start: int, end: int) -> list[Gap]:
    """The gaps from `start` to `end`: bits up to a byte boundary, whole bytes, bits after the last boundary."""
    head = min(-start % 8, end - start)
    body = (end - start - head) // 8 * 8
    return [Gap(bits) for bits in (head, body, end - start - head - body) if bits]


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
