"""From objects to descriptors, with a kernel of our own making; the true one: tests/measured."""

import errno
import os

import pytest

from chainbench_agent.bpf import libbpf
from chainbench_agent.errors import LoaderError
from chainbench_agent.loading import loader
from chainbench_agent.loading.loader import LoadRequest, MapFd, load
from chainbench_agent.loading.objects import MapShape, Object
from tests.loading.test_compiler import loads

SHAPES = (MapShape("first", 1, 8, 24, 77, 0), MapShape("second", 6, 4, 8, 1, 0x400))
FOUND = Object({"cb_a_0": loads(1, 0), "cb_bad_0": b"", "cb_silent_0": b"", "kfunc__f": b""}, SHAPES, "0.99")


class Kernel:
    """Gives descriptors of /dev/null, and remembers what it was asked."""

    def __init__(self):
        self.maps, self.programs, self.fds = {}, {}, []

    def give(self):
        self.fds.append(os.open("/dev/null", os.O_RDONLY))
        return self.fds[-1]

    def create_map(self, name, kind, sizes, flags):
        if kind == 99:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        self.maps[name] = (kind, sizes, flags)
        return self.give()

    def load_program(self, name, code, kind, log=None):
        if name == "cb_bad_0":
            if log:
                log.text.value = b"0: R1=ctx\nR1 invalid mem access 'scalar'\nprocessed 12 insns (limit 1000000)\n"
            raise OSError(errno.EACCES, "Permission denied")
        if name == "cb_silent_0":
            raise OSError(errno.EPERM, "Operation not permitted")
        self.programs[name] = code, kind
        return self.give()


@pytest.fixture
def kernel(monkeypatch):
    kernel = Kernel()
    monkeypatch.setattr(libbpf, "create_map", kernel.create_map)
    monkeypatch.setattr(libbpf, "load_program", kernel.load_program)
    yield kernel
    for fd in kernel.fds:
        try:
            os.close(fd)
        except OSError:
            continue


def test_descriptors_by_name(kernel):
    """Maps as they were shaped; programs of their kinds, with the descriptors of the maps in their code."""
    loaded = load(FOUND, [LoadRequest("cb_a_0", "raw_tracepoint"), LoadRequest("kfunc__f", "fentry", 4711)])
    first, second, *programs = kernel.fds

    assert kernel.maps == {"first": (1, (8, 24, 77), 0), "second": (6, (4, 8, 1), 0x400)}
    assert loaded.maps == {"first": MapFd(first, 8, 24, 77), "second": MapFd(second, 4, 8, 1)}
    assert loaded.programs == dict(zip(("cb_a_0", "kfunc__f"), programs, strict=True))
    assert kernel.programs == {"cb_a_0": (loads(second, first), (17, 0, 0)), "kfunc__f": (b"", (26, 24, 4711))}
    assert (loaded.failed, loaded.bcc_version) == ({}, "0.99")


def test_a_typed_raw_tracepoint(kernel):
    """A tracing program (26) that is attached as a raw tracepoint (23), to a type of the BTF."""
    load(FOUND, [LoadRequest("kfunc__f", "tp_btf", 4712)])

    assert kernel.programs == {"kfunc__f": (b"", (26, 23, 4712))}


def test_a_program_that_does_not_load(kernel):
    """The verifier's last words, or the kernel's own; the others load."""
    loaded = load(FOUND, [LoadRequest(name, "raw_tracepoint") for name in ("cb_silent_0", "cb_bad_0", "cb_a_0")])

    assert list(loaded.programs) == ["cb_a_0"]
    assert loaded.failed == {"cb_bad_0": "R1 invalid mem access 'scalar'", "cb_silent_0": "Operation not permitted"}
    assert len(kernel.fds) == 3


def test_a_map_that_is_refused(kernel):
    """Nothing is left of the others."""
    found = Object({}, (*SHAPES, MapShape("third", 99, 4, 4, 1, 0)), "0.99")

    with pytest.raises(LoaderError, match="the kernel refuses a map: Operation not permitted"):
        load(found, [])
    for fd in kernel.fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (
            "0: (79) r1\ninvalid access to map value\nprocessed 3 insns (limit 1000000) max_states",
            "invalid access to map value",
        ),
        ("R0 !read_ok\n\n", "R0 !read_ok"),
        ("", ""),
    ],
)
def test_verdict(log, words):
    """The line that says why, among the verifier's statistics."""
    assert loader.verdict(log) == words
