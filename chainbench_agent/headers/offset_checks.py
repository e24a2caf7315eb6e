"""Proof that the code BCC generates reads members where BTF says they are.

A header tree can be right for the compiler's front end and wrong in the code (see `c_layout`), so the check
is made on generated code: one function per member, compiled with the unit, that returns the member's offset.
"""

import struct
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from chainbench_agent.headers.btf import Btf
from chainbench_agent.headers.btf_types import tag

_INSTRUCTION = struct.Struct("=BBhi")
_MOVES = (0xB7, 0xB4)  # mov64 and mov32 of a constant
_R0 = 0


class OffsetCheck(NamedTuple):
    """`struct` as C spells it ("struct sock", "union thread_union"); `offset` in bytes."""

    struct: str
    member: str
    offset: int


def offset_checks(btf: Btf, structs: Iterable[str], names: Collection[str] | None = None) -> list[OffsetCheck]:
    """What must hold for each of these structs: its members, those of anonymous members too, if called so.

    Bit-fields have no address and are left out; `names` None means every member.
    """
    return [
        OffsetCheck(tag(record), member, offset)
        for struct in structs
        if (record := btf.record(struct))
        for member, offset in btf.members(struct)
        if names is None or member in names
    ]


def check_function(number: int) -> str:
    """Name of the C function that tests the check of this number."""
    return f"cb_offset_{number}"


def check_source(checks: Sequence[OffsetCheck]) -> str:
    """C text of one function per check, to be compiled with the unit that it vouches for."""
    return "".join(
        f"int {check_function(number)}(struct bpf_raw_tracepoint_args *ctx) "
        f"{{ {check.struct} *p = (void *)ctx->args[0]; return (char *)&p->{check.member} - (char *)p; }}\n"
        for number, check in enumerate(checks)
    )


def read_offset(bytecode: bytes) -> int:
    """The constant that a check function returns, from its instructions as `BPF.dump_func` gives them.

    Raises ValueError if they do not begin with `r0 = constant`.
    """
    operation, registers, _, constant = _INSTRUCTION.unpack_from(bytecode)
    if operation not in _MOVES or registers & 15 != _R0:
        raise ValueError(f"not a constant offset: the code begins with {bytecode[:8].hex()}")
    return int(constant)
