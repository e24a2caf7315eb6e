"""The size of what is loaded, as the kernel tells it."""

import json
import os
import subprocess

import pytest

from chainbench_agent.kernel import footprint, libbpf
from chainbench_agent.kernel.footprint import ProgramSize, fdinfo, map_bytes, program_size
from chainbench_agent.kernel.unit import load_unit
from chainbench_agent.probes import CATALOG, HOOKS


@pytest.fixture
def told(monkeypatch, tmp_path):
    """`told(text)`: what fdinfo says of every descriptor."""

    def tell(text):
        (tmp_path / "7").write_text(text)
        monkeypatch.setattr(footprint, "Path", lambda path: tmp_path / os.path.basename(path))  # noqa: PTH119

    monkeypatch.setattr(libbpf, "program_bytes", lambda _fd: (1968, 1130))
    return tell


@pytest.mark.parametrize(("line", "verified"), [("verified_insns:\t812\n", 812), ("", None)], ids=["5.16", "before"])
def test_a_program(told, line, verified):
    """Eight bytes an instruction; what an older kernel does not tell is None and not zero."""
    told(f"pos:\t0\nprog_jited:\t1\n{line}")

    assert program_size(7) == ProgramSize(instructions=246, machine_code_bytes=1130, verified=verified)


def test_a_map(told):
    told("map_type:\t2\nmemlock:\t6815744\nmap_id:\t3\n")

    assert map_bytes(7) == 6815744


def bpftool(kind, number):
    show = ["bpftool", "-j", kind, "show", "id", number]
    return json.loads(subprocess.run(show, capture_output=True, text=True, check=True).stdout)


@pytest.mark.bpf
def test_the_kernel_says_the_same_to_bpftool(tmp_path):
    """Of every program and every map of a module."""
    unit = load_unit([module for module in CATALOG if module.name == "exec"], HOOKS, tmp_path)
    try:
        for fd in unit.loaded.programs.values():
            found, told = program_size(fd), bpftool("prog", fdinfo(fd)["prog_id"])
            assert (found.instructions * 8, found.machine_code_bytes) == (told["bytes_xlated"], told["bytes_jited"])
        for table in unit.loaded.maps.values():
            assert map_bytes(table.fd) == bpftool("map", fdinfo(table.fd)["map_id"])["bytes_memlock"] > 0
    finally:
        unit.close()
