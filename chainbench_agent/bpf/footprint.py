"""Reads from the kernel how much memory loaded programs and maps use."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chainbench_agent.bpf import libbpf

_INSTRUCTION = struct.Struct("=BBhi")  # struct bpf_insn
_MOVE, _ADD = 0xBF, 0x07  # 64 bits wide: register to register; a constant to a register
_LOAD, _STORE_CONSTANT, _STORE = 1, 2, 3  # classes, in the lowest three bits of the code
_SLOT = 8
_FRAME = 10  # the register that points to the top of the frame


@dataclass(frozen=True, slots=True)
class ProgramSize:
    """`verified`: instructions that the verifier processed on all paths; None before Linux 5.16, which reports them.

    `stack_bytes`: a program may have 512; None if the kernel hides the code.
    """

    instructions: int
    machine_code_bytes: int
    verified: int | None
    stack_bytes: int | None


def fdinfo(fd: int | str, process: int | str = "self") -> Mapping[str, str]:
    """The kernel's information on a descriptor, of this or of another process."""
    text = Path(f"/proc/{process}/fdinfo/{fd}").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def program_size(fd: int) -> ProgramSize:
    code, machine_code_bytes = libbpf.program_code(fd)
    # Linux aba64c7da983 ("bpf: Add verified_insns to bpf_prog_info and fdinfo") (in v5.16)
    verified = fdinfo(fd).get("verified_insns")
    return ProgramSize(
        len(code) // _INSTRUCTION.size,
        machine_code_bytes,
        int(verified) if verified else None,
        stack_bytes(code) if code else None,
    )


def stack_bytes(code: bytes) -> int:
    """How far below the frame pointer a program accesses the stack, directly or by an address that it computes.

    Counted in whole slots, as in the verifier.  The programs have one frame, because all their functions are inlined.
    """
    deepest, copies = 0, {_FRAME}
    for operation, registers, offset, constant in _INSTRUCTION.iter_unpack(code):
        target, source, kind = registers & 0xF, registers >> 4, operation & 7
        if kind in (_STORE, _STORE_CONSTANT):
            deepest = min(deepest, offset if target in copies else 0)
            continue
        deepest = min(deepest, offset if kind == _LOAD and source in copies else 0)
        if operation == _ADD and target in copies:
            deepest = min(deepest, constant)
        copies.discard(target)
        if operation == _MOVE and source in copies:
            copies.add(target)
    return -(deepest // _SLOT) * _SLOT


def map_bytes(fd: int) -> int:
    """Memory that a map takes; before Linux 6.4 an estimate from its declared size."""
    return int(fdinfo(fd)["memlock"])
