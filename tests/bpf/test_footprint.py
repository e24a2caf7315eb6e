"""The sizes of programs and maps, as the kernel reports them."""

import json
import os
import struct
import subprocess

import pytest

from chainbench_agent.bpf import footprint, libbpf
from chainbench_agent.bpf.footprint import ProgramSize, fdinfo, map_bytes, program_size, stack_bytes
from chainbench_agent.loading.bpf_unit import load_unit
from chainbench_agent.probes import CATALOG, HOOKS


@pytest.fixture
def fdinfo_of(monkeypatch, tmp_path):
    """`fdinfo_of(text)`: every descriptor has this text in its fdinfo."""

    def write(text):
        (tmp_path / "7").write_text(text)
        monkeypatch.setattr(footprint, "Path", lambda path: tmp_path / os.path.basename(path))  # noqa: PTH119

    monkeypatch.setattr(libbpf, "program_code", lambda _fd: (bytes(1968), 1130))
    return write


@pytest.mark.parametrize(("line", "verified"), [("verified_insns:\t812\n", 812), ("", None)], ids=["5.16", "before"])
def test_an_instruction_is_eight_bytes(fdinfo_of, line, verified):
    """A number that an older kernel does not report is None, not 0."""
    fdinfo_of(f"pos:\t0\nprog_jited:\t1\n{line}")

    assert program_size(7) == ProgramSize(246, 1130, verified, stack_bytes=0)


def test_the_stack_of_a_hidden_program_is_not_known(fdinfo_of, monkeypatch):
    fdinfo_of("")
    monkeypatch.setattr(libbpf, "program_code", lambda _fd: (b"", 1130))

    assert program_size(7).stack_bytes is None


# (code, target register + 16 · source register, offset, constant)
STORE_BYTES_AT_FRAME = (0x7B, 0x1A, -24, 0)
LOAD_BYTES_FROM_FRAME = (0x79, 0xA1, -40, 0)
STORE_CONSTANT_AT_FRAME = (0x62, 0x0A, -12, 7)
FRAME_TO_R2 = (0xBF, 0xA2, 0, 0)
R2_TO_R3 = (0xBF, 0x23, 0, 0)
LOWER_R2 = (0x07, 0x02, 0, -64)
LOWER_R3 = (0x07, 0x03, 0, -96)
R2_ELSEWHERE = (0x79, 0x12, 0, 0)
STORE_AT_R2 = (0x7B, 0x12, -80, 0)


@pytest.mark.parametrize(
    ("lines", "stack"),
    [
        ([], 0),
        ([STORE_BYTES_AT_FRAME], 24),
        ([LOAD_BYTES_FROM_FRAME, STORE_BYTES_AT_FRAME], 40),
        ([STORE_CONSTANT_AT_FRAME], 16),
        ([FRAME_TO_R2, LOWER_R2], 64),
        ([LOWER_R2], 0),
        ([FRAME_TO_R2, R2_TO_R3, LOWER_R2, LOWER_R3], 96),
        ([FRAME_TO_R2, STORE_AT_R2], 80),
        ([FRAME_TO_R2, R2_ELSEWHERE, LOWER_R2, STORE_AT_R2], 0),
    ],
)
def test_the_stack_is_what_is_accessed_below_the_frame_pointer(lines, stack):
    """Whatever reaches below the frame pointer, and nothing that only looks so."""
    assert stack_bytes(b"".join(struct.pack("=BBhi", *line) for line in lines)) == stack


def test_the_size_of_a_map_is_its_locked_memory(fdinfo_of):
    fdinfo_of("map_type:\t2\nmemlock:\t6815744\nmap_id:\t3\n")

    assert map_bytes(7) == 6815744


def bpftool(kind, number):
    show = ["bpftool", "-j", kind, "show", "id", number]
    return json.loads(subprocess.run(show, capture_output=True, text=True, check=True).stdout)


@pytest.mark.bpf
@pytest.mark.portable
def test_bpftool_reports_the_same_sizes(tmp_path):
    """For every program and every map of a module."""
    unit = load_unit([module for module in CATALOG if module.name == "exec"], HOOKS, tmp_path)
    try:
        for fd in unit.loaded.programs.values():
            found, shown = program_size(fd), bpftool("prog", fdinfo(fd)["prog_id"])
            assert (found.instructions * 8, found.machine_code_bytes) == (
                shown["bytes_xlated"],
                shown["bytes_jited"],
            )
        for table in unit.loaded.maps.values():
            assert map_bytes(table.fd) == bpftool("map", fdinfo(table.fd)["map_id"])["bytes_memlock"] > 0
    finally:
        unit.close()
