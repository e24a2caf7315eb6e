"""The functions of compiled files, by name and by offset."""

import io
import re
import subprocess

import pytest
from packages import require

from chainbench_agent.symbols.elf import FunctionTable, is_statically_linked, read_functions

CODE = """
__attribute__((noinline, used)) static int inner(int x) { return x * 7; }
int outer(int x) { return inner(x) + 1; }
int main(int n, char **v) { return outer(n); }
"""


@pytest.fixture
def built(tmp_path):
    """`built(*options)` → a program or a library."""
    compiler = require("cc")
    (tmp_path / "code.c").write_text(CODE)

    def build(*options):
        output = tmp_path / "-".join(("code", *options))
        subprocess.run([compiler, *options, tmp_path / "code.c", "-o", output], check=True)
        return output

    return build


def functions(path):
    with path.open("rb") as file:
        return read_functions(file)


def test_functions_have_the_offsets_that_nm_reports(built):
    """In this file the addresses are offsets, as the segment with the code begins with the file."""
    path = built("-shared", "-fPIC", "-Wl,-z,noseparate-code")
    told = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    locations = {name: int(address, 16) for address, name in re.findall(r"^(\w+) [tT] (\w+)$", told, re.MULTILINE)}
    found = functions(path)

    for name in ("inner", "outer", "main"):
        assert found.offsets(name) == {locations[name]}
        assert found.name_at(locations[name]) == f"{name}+0x0"
        assert found.name_at(locations[name] + 1) == f"{name}+0x1"


def test_a_stripped_library_has_its_exported_functions(built):
    """Code after an exported function is not attributed to it."""
    whole, stripped = functions(built("-shared", "-fPIC")), functions(built("-shared", "-fPIC", "-s"))
    (inner,) = whole.offsets("inner")

    assert whole.offsets("outer") == stripped.offsets("outer") != set()
    assert stripped.offsets("inner") == set()
    assert (whole.name_at(inner), stripped.name_at(inner)) == ("inner+0x0", "")


def test_functions_of_other_libraries_are_left_out(built):
    """A program also has symbols for the functions that it calls in libraries."""
    assert functions(built()).offsets("__libc_start_main") == set()


def test_a_static_program_is_recognized(built):
    """Also one that is position-independent."""
    for options, alone in ((("-static",), True), (("-static-pie",), True), ((), False)):
        with built(*options).open("rb") as file:
            assert is_statically_linked(file) is alone


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x01\x01\x01" + bytes(100)])
def test_other_files_have_no_functions(content):
    """A script, the first bytes of a file, a 32-bit program."""
    assert not read_functions(io.BytesIO(content))
    assert not is_statically_linked(io.BytesIO(content[:4]))


def test_all_versions_of_a_function_are_found():
    found = FunctionTable([(0x200, 16, "wait"), (0x100, 16, "wait"), (0x100, 16, "__wait")])

    assert found.offsets("wait") == {0x100, 0x200}
    assert found.name_at(0x20F) == "wait+0xf"
    assert found.name_at(0x210) == found.name_at(0xFF) == ""
