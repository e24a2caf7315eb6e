"""The compiler child, with a bcc of our own making: what passes between it and the daemon."""

import os
import struct
from pathlib import Path

import pytest

from chainbench_agent.errors import LayoutError, LoaderError, SetupError
from chainbench_agent.loading import compiler
from chainbench_agent.loading.compiler import UnitText, compile_unit, compiled
from chainbench_agent.loading.objects import MapShape

FAKE_BCC = """
import os, struct, __main__
__version__ = "0.99"
FDS = {b"first": 11, b"second": 7}
KERNEL = {11: ("1", "8", "24", "77", "0x0"), 7: ("6", "4", "8", "1", "0x400")}
FIELDS = "map_type", "key_size", "value_size", "max_entries", "map_flags"
__main__.fdinfo = lambda fd: dict(zip(FIELDS, KERNEL[fd]))

class Table:
    def __init__(self, fd): self.map_fd = fd

class BPF:
    def _trace_autoload(self): raise AssertionError("attached by name")
    def __init__(self, text, cflags):
        self._trace_autoload()
        assert os.environ["BCC_KERNEL_SOURCE"] == os.getcwd()
        if "#error" in text:
            os.write(2, b"unit.c:7: error: use of undeclared identifier\\n")
            raise Exception("Failed to compile BPF module <text>")
        if "warning" in text:
            os.write(2, b"unit.c:9: warning: unused variable\\n")
        if "crash" in text:
            os.write(2, b"LLVM ERROR: out of memory\\n")
            os._exit(9)
        print("what a library says is no answer")
    def dump_func(self, name):
        if name.startswith(b"cb_offset"):
            return struct.pack("=BBhiQ", 0xb7, 0, 0, 8 if name == b"cb_offset_1" else 4, 0)
        return b"".join(struct.pack("=BBhiQ", 0x18, 0x10 | 1, 0, fd, 0) for fd in (7, 11))
    def __getitem__(self, name):
        return Table(FDS[name])
"""


@pytest.fixture
def bcc(tmp_path, monkeypatch):
    """The file that the child finds instead of Debian's."""
    file = tmp_path / "python" / "bcc.py"
    file.parent.mkdir()
    file.write_text(FAKE_BCC)
    monkeypatch.syspath_prepend(file.parent)
    monkeypatch.setenv("PYTHONPATH", str(file.parent), prepend=os.pathsep)
    return file


@pytest.fixture
def text(tmp_path, bcc):  # noqa: ARG001 - nothing to ask without it
    """`text(c_text=…)` → what to ask of the child."""
    (tmp_path / "tree").mkdir()

    def make(c_text="", functions=(), maps=(), offsets=()):
        return UnitText(c_text, str(tmp_path / "tree"), list(functions), list(maps), list(offsets))

    return make


def open_descriptors():
    return {fd.name for fd in Path("/proc/self/fd").iterdir()}


def loads(*numbers):
    """Instructions that load the maps of these numbers."""
    return b"".join(struct.pack("=BBhiQ", 0x18, 0x11, 0, number, 0) for number in numbers)


def test_an_object(text):
    """The shapes of the maps as the kernel has them; in the code a map is its number."""
    found = compile_unit(text(functions=["cb_a_0", "kfunc__f"], maps=["first", "second"]))

    assert found.maps == (MapShape("first", 1, 8, 24, 77, 0), MapShape("second", 6, 4, 8, 1, 0x400))
    assert found.programs == {"cb_a_0": loads(1, 0), "kfunc__f": loads(1, 0)}
    assert found.bcc_version == "0.99"


def test_a_cached_object_needs_no_compiler(text, bcc):
    """The second time BCC is not even imported; of another text, it is."""
    asked = text(functions=["cb_a_0"], maps=["first", "second"])
    bcc.with_name("version.py").write_text("1")
    first = compiled(asked)
    bcc.write_text("raise ImportError('it is imported')")

    assert compiled(asked) == first
    with pytest.raises(SetupError, match="it is imported"):
        compiled(text("another", functions=["cb_a_0"], maps=["first", "second"]))


def test_another_compiler_compiles_again(text, bcc):
    """Its version is a part of what an object is made of."""
    asked = text(functions=["cb_a_0"], maps=["first", "second"])
    bcc.with_name("version.py").write_text("1")
    compiled(asked)
    bcc.with_name("version.py").write_text("2")
    bcc.write_text(FAKE_BCC.replace("0.99", "1.0.0"))  # of another size: Python goes by size and second

    assert compiled(asked).bcc_version == "1.0.0"


def test_a_failure_is_not_cached(text, bcc):
    """It is tried again."""
    bcc.with_name("version.py").write_text("1")
    for _ in range(2):
        with pytest.raises(LoaderError, match="does not compile"):
            compiled(text("#error"))
    assert not (Path(text().header_tree) / "objects").exists()


def test_what_does_not_compile(text):
    """In clang's own words: bcc says only that it failed."""
    with pytest.raises(LoaderError, match=r"does not compile:\nunit\.c:7: error: use of undeclared identifier"):
        compile_unit(text("#error"))


def test_wrong_offsets(text):
    """Each that is wrong is named."""
    offsets = [("cb_offset_0", "struct a.x", 4), ("cb_offset_1", "struct a.y", 12), ("cb_offset_2", "struct a.z", 6)]

    with pytest.raises(LayoutError, match=r"nothing was loaded: struct a\.y at 8, BTF says 12; struct a\.z at 4, BTF"):
        compile_unit(text(offsets=offsets))


def test_right_offsets(text):
    offsets = [("cb_offset_0", "struct a.x", 4), ("cb_offset_1", "struct a.y", 8)]

    assert compile_unit(text("warning", offsets=offsets)).programs == {}


def test_a_child_that_dies(text, bcc):
    """Its last words are in the error."""
    bcc.write_text("import os\nos.write(2, b'cannot allocate memory in static TLS block')\nos._exit(9)")

    with pytest.raises(LoaderError, match="died: cannot allocate memory in static TLS block"):
        compile_unit(text())


def test_a_child_that_dies_compiling(text):
    """LLVM says why on its way out: those are the last words."""
    with pytest.raises(LoaderError, match="died: LLVM ERROR: out of memory"):
        compile_unit(text("crash"))


def test_a_child_that_hangs(text, bcc, monkeypatch):
    """It is killed, not waited for."""
    monkeypatch.setattr(compiler, "_TIMEOUT_S", 0.5)
    bcc.write_text("import time\ntime.sleep(100)")

    with pytest.raises(LoaderError, match="the compiler did not finish within"):
        compile_unit(text())


def test_without_bcc(text, bcc):
    """The remedy names the package of the distribution, not PyPI's."""
    bcc.write_text("raise ImportError('No module named bcc')")

    with pytest.raises(SetupError, match=r"Debian's bcc \(No module named bcc\); apt install python3-bpfcc"):
        compile_unit(text())


def test_no_descriptor_is_left(text):
    """Neither of a success nor of a failure."""
    before = open_descriptors()
    compile_unit(text(functions=["cb_a_0"], maps=["first", "second"]))
    with pytest.raises(LoaderError):
        compile_unit(text("#error"))
    with pytest.raises(LoaderError):
        compile_unit(text("crash"))

    assert open_descriptors() == before
