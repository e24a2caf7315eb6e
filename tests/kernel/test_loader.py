"""The loader child, with a bcc of our own making: what passes between it and the daemon."""

import os
import socket
from pathlib import Path

import pytest

from chainbench_agent.errors import LayoutError, LoaderError, SetupError
from chainbench_agent.kernel import channel, loader
from chainbench_agent.kernel.loader import MapFd, Request, load

FAKE_BCC = """
import ctypes, os
__version__ = "0.99"

class Function:
    def __init__(self): self.fd = os.open("/dev/zero", os.O_RDONLY)

class Table:
    class Key(ctypes.Structure): _fields_ = [("k", ctypes.c_uint64)]
    class sLeaf(ctypes.Structure): _fields_ = [("v", ctypes.c_uint64 * 3)]
    Leaf = sLeaf * 2
    max_entries = 77
    def __init__(self): self.map_fd = os.open("/dev/null", os.O_RDONLY)

class Array(Table):
    sLeaf = property(lambda self: self.none)
    class Leaf(ctypes.Structure): _fields_ = [("v", ctypes.c_uint32)]

class BPF:
    KPROBE, PERF_EVENT, RAW_TRACEPOINT, TRACING = 2, 7, 17, 26
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
    def dump_func(self, name):
        return bytes([0xb7, 0, 0, 0, 8 if name == b"cb_offset_1" else 4, 0, 0, 0]) + bytes(8)
    def load_func(self, name, kind):
        if name == b"cb_bad_0":
            os.write(2, b"0: R1=ctx\\nR1 invalid mem access 'scalar'\\nprocessed 12 insns (limit 1000000)\\n")
            raise Exception("Failed to load BPF program cb_bad_0: Permission denied")
        if name == b"cb_silent_0":
            raise Exception("Failed to load BPF program cb_silent_0")
        assert kind == (26 if name.startswith((b"kfunc", b"kretfunc")) else 17)
        return Function()
    def __getitem__(self, name):
        return Array() if name == b"plain" else Table()
"""


@pytest.fixture
def bcc(tmp_path, monkeypatch):
    """The file that the child finds instead of Debian's."""
    file = tmp_path / "python" / "bcc.py"
    file.parent.mkdir()
    file.write_text(FAKE_BCC)
    monkeypatch.setenv("PYTHONPATH", str(file.parent), prepend=os.pathsep)
    return file


@pytest.fixture
def request_(tmp_path, bcc):  # noqa: ARG001 - no request without it
    """`request_(text=…)` → what to ask of the child."""
    (tmp_path / "tree").mkdir()

    def make(text="", programs=(), maps=(), offsets=()):
        return Request(text, str(tmp_path / "tree"), list(programs), list(maps), list(offsets))

    return make


def target(fd):
    return str(Path(f"/proc/self/fd/{fd}").readlink())


def open_descriptors():
    return {fd.name for fd in Path("/proc/self/fd").iterdir()}


def close(loaded):
    for fd in (*loaded.programs.values(), *(table.fd for table in loaded.maps.values())):
        os.close(fd)


def test_descriptors_by_name(request_):
    """Programs and maps arrive as what they are, with the sizes of one CPU's value."""
    loaded = load(request_(programs=[("cb_a_0", "raw_tracepoint"), ("kfunc__f", "fentry")], maps=["plain", "per_cpu"]))

    assert {name: target(fd) for name, fd in loaded.programs.items()} == dict.fromkeys(
        ("cb_a_0", "kfunc__f"), "/dev/zero"
    )
    assert {name: target(table.fd) for name, table in loaded.maps.items()} == dict.fromkeys(
        ("plain", "per_cpu"), "/dev/null"
    )
    assert loaded.maps["plain"] == MapFd(loaded.maps["plain"].fd, key_size=8, value_size=4, entries=77)
    assert loaded.maps["per_cpu"].value_size == 24
    assert loaded.failed == {}
    assert loaded.bcc_version == "0.99"
    close(loaded)


def test_a_program_that_does_not_load(request_):
    """The verifier's last words, or bcc's own; the others load."""
    wanted = [(name, "raw_tracepoint") for name in ("cb_bad_0", "cb_good_0", "cb_silent_0")]

    loaded = load(request_(programs=wanted, maps=["plain"]))

    assert list(loaded.programs) == ["cb_good_0"]
    assert target(loaded.programs["cb_good_0"]) == "/dev/zero"
    assert target(loaded.maps["plain"].fd) == "/dev/null"
    assert loaded.failed == {
        "cb_bad_0": "R1 invalid mem access 'scalar'",
        "cb_silent_0": "Failed to load BPF program cb_silent_0",
    }
    close(loaded)


def test_each_verdict_is_its_own(request_):
    """Words about one program are not taken for the next one's, nor a warning of clang's for a verdict."""
    wanted = [(name, "raw_tracepoint") for name in ("cb_silent_0", "cb_bad_0", "cb_silent_0")]

    loaded = load(request_("warning", programs=wanted))

    assert loaded.failed == {
        "cb_silent_0": "Failed to load BPF program cb_silent_0",
        "cb_bad_0": "R1 invalid mem access 'scalar'",
    }


def test_what_does_not_compile(request_):
    """In clang's own words: bcc says only that it failed."""
    with pytest.raises(LoaderError, match=r"does not compile:\nunit\.c:7: error: use of undeclared identifier"):
        load(request_("#error"))


def test_wrong_offsets(request_):
    """Nothing is loaded, and each that is wrong is named."""
    offsets = [("cb_offset_0", "struct a.x", 4), ("cb_offset_1", "struct a.y", 12), ("cb_offset_2", "struct a.z", 6)]

    with pytest.raises(LayoutError, match=r"nothing was loaded: struct a\.y at 8, BTF says 12; struct a\.z at 4, BTF"):
        load(request_(programs=[("cb_a_0", "raw_tracepoint")], offsets=offsets))


def test_right_offsets(request_):
    close(load(request_(offsets=[("cb_offset_0", "struct a.x", 4), ("cb_offset_1", "struct a.y", 8)])))


def test_a_child_that_dies(request_, bcc):
    """Its last words are in the error."""
    bcc.write_text("import os\nos.write(2, b'cannot allocate memory in static TLS block')\nos._exit(9)")

    with pytest.raises(LoaderError, match="died without an answer: cannot allocate memory in static TLS block"):
        load(request_())


def test_a_child_that_dies_compiling(request_):
    """LLVM says why on its way out: those are the last words."""
    with pytest.raises(LoaderError, match="died without an answer: LLVM ERROR: out of memory"):
        load(request_("crash"))


def test_a_child_that_hangs(request_, bcc, monkeypatch):
    """It is killed, not waited for."""
    monkeypatch.setattr(loader, "_TIMEOUT_S", 0.5)
    bcc.write_text("import time\ntime.sleep(100)")

    with pytest.raises(LoaderError, match="died without an answer: -9"):
        load(request_())


def test_without_bcc(request_, bcc):
    """The remedy names the package of the distribution, not PyPI's."""
    bcc.write_text("raise ImportError('No module named bcc')")

    with pytest.raises(SetupError, match=r"Debian's bcc \(No module named bcc\); apt install python3-bpfcc"):
        load(request_())


def test_no_descriptor_is_left(request_):
    """Neither of a success that was given back, nor of a failure."""
    before = open_descriptors()
    close(load(request_(programs=[("cb_a_0", "raw_tracepoint")], maps=["plain"])))
    with pytest.raises(LoaderError):
        load(request_("#error"))
    with pytest.raises(LoaderError):
        load(request_("crash"))

    assert open_descriptors() == before


@pytest.mark.parametrize("count", [0, 1, 250, 251, 600])
def test_any_number_of_descriptors(count):
    """More than one message can carry arrive complete and in order."""
    here, there = socket.socketpair()
    ends = [os.open(path, os.O_RDONLY) for path in ("/dev/null", "/dev/zero")]
    with here, there:
        channel.send(here, {"a": "é" * 1000}, tuple(ends[i % 2] for i in range(count)))
        message, fds = channel.receive(there)
    found = [target(fd) for fd in fds]
    for fd in (*ends, *fds):
        os.close(fd)

    assert message == {"a": "é" * 1000, "fds": count}
    assert found == [("/dev/null", "/dev/zero")[i % 2] for i in range(count)]


def test_a_channel_that_closes_early():
    """Half a message is no message."""
    here, there = socket.socketpair()
    with there:
        here.sendall((100).to_bytes(8, "little") + b"{")
        here.close()
        with pytest.raises(OSError, match="closed"):
            channel.receive(there)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (
            "0: (79) r1\ninvalid access to map value\nprocessed 3 insns (limit 1000000) max_states",
            "invalid access to map value",
        ),
        ("bpf: Failed to load program: Operation not permitted\n", "Failed to load program: Operation not permitted"),
        ("R0 !read_ok\n\nHINT: The verifier …\n", "R0 !read_ok"),
        ("", ""),
    ],
)
def test_verdict(log, words):
    """The line that says why, among the verifier's statistics and bcc's hints."""
    assert loader._verdict(log) == words
