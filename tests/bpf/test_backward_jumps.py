"""Loops end with a jump back, never by running into their beginning: older kernels refuse the latter.

Before it verifies a program, the kernel follows its edges.  In v5.10 an instruction that is not a jump may not lead to
one that is being followed: "back-edge from insn 502 to 503".
"""

import struct
from collections.abc import Iterator

import pytest

from chainbench_agent.commands.probes_check import check
from chainbench_agent.loading import objects
from chainbench_agent.probes import CATALOG

INSTRUCTION = struct.Struct("=BBhi")  # struct bpf_insn
JUMP_CLASSES = 5, 6
ALWAYS, CALL, EXIT = 0x00, 0x80, 0x90


def edges(code: bytes) -> list[tuple[tuple[int, bool], ...]]:
    """By instruction: where it leads, and whether by a jump."""
    return [
        tuple(lead(place, operation, offset))
        for place, (operation, _registers, offset, _constant) in enumerate(INSTRUCTION.iter_unpack(code))
    ]


def lead(place: int, operation: int, offset: int) -> Iterator[tuple[int, bool]]:
    kind = operation & 0xF0 if operation & 7 in JUMP_CLASSES else CALL
    if kind not in (ALWAYS, EXIT):
        yield place + 1, kind != CALL
    if kind not in (CALL, EXIT):
        yield place + 1 + offset, True


def falls_back(code: bytes) -> list[tuple[int, int]]:
    """From where to where the program would be refused."""
    leads = [iter(found) for found in edges(code)]
    followed, path, found = {0}, [0], []
    on_path = {0}
    while path:
        place = path[-1]
        for to, jumps in leads[place]:
            if to in on_path and not jumps:
                found.append((place, to))
            if to not in followed:
                followed.add(to)
                on_path.add(to)
                path.append(to)
                break
        else:
            on_path.discard(path.pop())
    return found


def assemble(*instructions: tuple[int, int]) -> bytes:
    return b"".join(INSTRUCTION.pack(operation, 0, offset, 0) for operation, offset in instructions)


ADD, JUMP, JUMP_IF_EQUAL, RETURN = 0x07, 0x05, 0x15, 0x95


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (assemble((ADD, 0), (ADD, 0), (JUMP_IF_EQUAL, -2), (RETURN, 0)), []),
        (assemble((ADD, 0), (ADD, 0), (JUMP, -2)), []),
        (assemble((JUMP, 1), (ADD, 0), (ADD, 0), (JUMP_IF_EQUAL, -3), (RETURN, 0)), [(1, 2)]),
        (assemble((JUMP_IF_EQUAL, 1), (ADD, 0), (RETURN, 0)), []),
    ],
    ids=["a loop", "an endless loop", "a loop entered in its middle", "two ways to one place"],
)
def test_falls_back(code, expected):
    """The rule itself."""
    assert falls_back(code) == expected


@pytest.mark.bpf
@pytest.mark.portable  # the guest of v5.10 refuses such a program itself
def test_no_program_falls_back(tmp_path, monkeypatch):
    """In no program of any unit, one of the combined modules included."""
    compiled = []
    store = objects.store
    monkeypatch.setattr(objects, "store", lambda place, found: (compiled.append(found), store(place, found)))
    check(CATALOG, tmp_path)

    found = [(name, falls_back(code)) for unit in compiled for name, code in unit.programs.items()]
    assert len(compiled) == len(CATALOG) + 1
    assert not [(name, places) for name, places in found if places]
