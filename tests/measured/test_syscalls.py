"""System calls are counted by name, exactly; the agent's own are not among them."""

import ctypes
import platform

import pytest

pytestmark = pytest.mark.bpf


def test_rare_calls_exactly(measure, python):
    """1,009 calls of personality(2), which nothing else makes while a test runs, are 1,009."""
    code = "import ctypes\nc = ctypes.CDLL(None)\nfor _ in range(1009): c.personality(0xffffffff)"

    evidence = measure(lambda: python(code))

    assert evidence["syscall_counts"]["personality"] == 1009


def test_the_agents_own_calls_are_not_counted(measure):
    """What the process that collects does in the run is no part of the evidence."""
    libc = ctypes.CDLL(None)

    evidence = measure(lambda: [libc.personality(0xFFFFFFFF) for _ in range(997)])

    assert "personality" not in evidence["syscall_counts"]


def test_fsyncs(measure, python, tmp_path):
    """23 fsyncs of one byte each; the five well-known calls are named even when they are zero."""
    code = (
        f"import os\nfd = os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_WRONLY)\n"
        "for _ in range(23): os.write(fd, b'x'); os.fsync(fd)"
    )

    evidence = measure(lambda: python(code))

    counts = evidence["syscall_counts"]
    assert counts["fsync"] >= 23
    assert list(counts)[:5] == ["futex", "fsync", "openat", "read", "write"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="int 0x80 is how x86 makes 32-bit calls")
def test_32_bit_calls_have_their_own_numbers(measure, python):
    """Call 68 is sgetmask for a 32-bit program, and msgget for a 64-bit one."""
    code = (
        "import ctypes, mmap\n"
        "code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n"
        r"code.write(b'\x53\xb8\x44\x00\x00\x00\xcd\x80\x5b\xc3')"
        "  # push rbx; mov eax, 68; int 0x80; pop rbx; ret\n"
        "call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))\n"
        "for _ in range(101): call()"
    )

    counts = measure(lambda: python(code))["syscall_counts"]

    assert counts.get("sgetmask") == 101
    assert "msgget" not in counts


def test_only_calls_within_the_run(measure, python):
    """Two runs in a row do not add up: evidence is what happened between its own samples."""
    code = "import ctypes\nctypes.CDLL(None).personality(0xffffffff)"
    first = measure(lambda: [python(code) for _ in range(3)])
    python(code)
    second = measure(lambda: python(code))

    assert (first["syscall_counts"]["personality"], second["syscall_counts"]["personality"]) == (3, 1)
