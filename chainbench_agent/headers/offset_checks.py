"""Checks that the code that BCC generates reads members at the offsets that BTF gives.

A header tree can be right for the compiler's front end and wrong in the code (see c_layout.py), so the check
uses generated code: one function per member, compiled with the BPF unit, that returns the member's offset.
"""

import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from chainbench_agent.headers.btf import Btf
from chainbench_agent.headers.btf_types import Record, tag

_INSTRUCTION = struct.Struct("=BBhi")
_MOVES = (0xB7, 0xB4)  # mov64 and mov32 of a constant
_R0 = 0


class OffsetCheck(NamedTuple):
    """The expected `offset` of a member, in bytes; `struct` with its keyword, as "struct sock"."""

    struct: str
    member: str
    offset: int


def offset_checks(btf: Btf, structs: Iterable[str], names: Collection[str] | None = None) -> list[OffsetCheck]:
    """The checks for the members of these structs that are called as in `names`; None means every member.

    Members of anonymous structs and unions are members like any other, also where the anonymous one is itself a named
    member: `sk_lock.owned`.  The members of an unnamed member whose type has a tag are checked whatever their names:
    the tree has such a member written out, and its size moves all that follows.  Bit-fields have no address, and are
    left out.
    """
    return [
        OffsetCheck(tag(record), path, offset)
        for struct in structs
        if (record := btf.record(struct))
        for path, offset, tagged in _paths(btf, record)
        if names is None or tagged or path.rpartition(".")[2] in names
    ]


def _paths(
    btf: Btf, record: Record, base: int = 0, prefix: str = "", *, tagged: bool = False
) -> Iterator[tuple[str, int, bool]]:
    """(path, byte offset, whether it is part of an unnamed member whose type has a tag) of each member."""
    for name, type_id, bit_offset, bits in record.members:
        inner = btf.resolve(type_id)
        offset = base + bit_offset // 8
        if name and not bits:
            yield prefix + name, offset, tagged
        if not isinstance(inner, Record):
            continue
        if not name:
            yield from _paths(btf, inner, offset, prefix, tagged=tagged or bool(inner.name))
        elif not inner.name:
            yield from _paths(btf, inner, offset, f"{prefix}{name}.", tagged=tagged)


def check_function(number: int) -> str:
    """The name of the C function for the check with this number."""
    return f"cb_offset_{number}"


def check_source(checks: Sequence[OffsetCheck]) -> str:
    """C text with a function for each check, to be compiled with the BPF unit."""
    return "".join(
        f"int {check_function(number)}(struct bpf_raw_tracepoint_args *ctx) "
        f"{{ {check.struct} *p = (void *)ctx->args[0]; return (char *)&p->{check.member} - (char *)p; }}\n"
        for number, check in enumerate(checks)
    )


def read_offset(bytecode: bytes) -> int:
    """The constant that a check function returns, read from its instructions as `BPF.dump_func` gives them.

    Raises ValueError if they do not begin with `r0 = constant`.
    """
    operation, registers, _, constant = _INSTRUCTION.unpack_from(bytecode)
    if operation not in _MOVES or registers & 15 != _R0:
        raise ValueError(f"not a constant offset: the code begins with {bytecode[:8].hex()}")
    return int(constant)
