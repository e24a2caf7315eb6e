"""The probes as ordinary C: the fused unit, compiled for this machine's user space."""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE))  # the tests here import the other files of this directory

from packages import require  # noqa: E402 - found only now
from user_space import FUTEX, UserSpace, fused  # noqa: E402 - found only now

WARNINGS = ("-Wall", "-Wno-unused", "-Wno-unknown-pragmas", "-Wno-pointer-sign", "-Werror")  # BCC does not mind either
OPTIONS = ("-std=gnu11", "-O1", "-shared", "-fPIC", *WARNINGS)
INCLUDE = f"-I{HERE / 'shim'}"


@pytest.fixture(scope="session")
def compile_unit(tmp_path_factory):
    """`compile_unit(text)` → a shared object of the shim and the text."""
    compiler = require("cc")
    directory = tmp_path_factory.mktemp("unit")

    def compile_(text, name):
        source, built = directory / f"{name}.c", directory / f"{name}.so"
        source.write_text(f'#include "shim.h"\n{text}')
        subprocess.run([compiler, *OPTIONS, INCLUDE, source, "-o", built], check=True)
        return built

    return compile_


@pytest.fixture(scope="session")
def unit(compile_unit):
    """All modules, for a kernel that has every member which some have."""
    return compile_unit(fused().text, "unit")


@pytest.fixture
def kernel(unit, tmp_path):
    """The unit with empty maps, at time 0: each test gets a library of its own."""
    return UserSpace(ctypes.CDLL(str(shutil.copy(unit, tmp_path))))


@pytest.fixture
def thread(kernel):
    """A thread that has been seen: it entered CPU 0 at time 1000, where the run began."""
    task = kernel.task(10, syscall=FUTEX)
    kernel.at(1000).begin()
    kernel.switch(kernel.idle, task)
    return task
