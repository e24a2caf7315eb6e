"""What loaded programs and maps take, in the kernel's own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chainbench_agent.kernel import libbpf

_INSTRUCTION_BYTES = 8


@dataclass(frozen=True, slots=True)
class ProgramSize:
    """`verified`: instructions that the verifier walked through on all paths; None before Linux 5.16, which tells."""

    instructions: int
    machine_code_bytes: int
    verified: int | None


def fdinfo(fd: int) -> Mapping[str, str]:
    """What the kernel says of one of our descriptors."""
    text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def program_size(fd: int) -> ProgramSize:
    xlated, jited = libbpf.program_bytes(fd)
    # Linux aba64c7da983 ("bpf: Add verified_insns to bpf_prog_info and fdinfo") (in v5.16)
    verified = fdinfo(fd).get("verified_insns")
    return ProgramSize(xlated // _INSTRUCTION_BYTES, jited, int(verified) if verified else None)


def map_bytes(fd: int) -> int:
    """Memory of a map; before Linux 6.4 an estimate, from its size as declared."""
    return int(fdinfo(fd)["memlock"])
