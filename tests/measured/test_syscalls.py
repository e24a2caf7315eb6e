"""System calls are counted by name, exactly; the agent's own are not among them."""

import ctypes
import platform
from textwrap import indent

import pytest

from chainbench_agent.catalog.selection import Selection
from chainbench_agent.host.syscall_names import syscalls

pytestmark = pytest.mark.bpf


def test_rare_calls_exactly(measure, python):
    """1,009 calls of personality(2), which nothing else makes while a test runs, are 1,009."""
    code = "import ctypes\nc = ctypes.CDLL(None)\nfor _ in range(1009): c.personality(0xffffffff)"

    evidence = measure(lambda: python(code))

    assert evidence["syscall_counts"]["personality"] == 1009


def test_the_agents_own_calls_are_not_counted(measure):
    """The calls of the process that collects are not part of the evidence."""
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


def pairs(evidence):
    """(call, error) → count."""
    return {(one["syscall"], one["errno"]): one["count"] for one in evidence["syscall_counts"]["errors"]}


@pytest.mark.usefixtures("noise")
def test_errors_exactly(targeted):
    """Errors of the target on a busy machine, by call, by error and by process; successful calls are not counted."""
    failing = "for _ in range({}):\n try: {}\n except OSError: pass\n"
    code = (
        failing.format(53, "os.kill(1 << 30, 0)")
        + failing.format(101, "os.open('/no/such/file', 0)")
        + failing.format(23, "os.open('/dev/null/file', 0)")
        + "for _ in range(1009): os.kill(os.getpid(), 0)\n"
        + "if os.fork() == 0:\n"
        + indent(failing.format(31, "os.setpgid(1 << 30, 0)"), " ")
        + " os._exit(0)\nos.wait()"
    )
    one = targeted(code, "import os")
    evidence = one.run(selection=Selection(("syscalls:errors",)))

    found, section = pairs(evidence), evidence["syscall_counts"]
    assert found["kill", "ESRCH"] == 53
    assert found["openat", "ENOTDIR"] == 23
    assert found["setpgid", "ESRCH"] == 31
    assert found["openat", "ENOENT"] >= 101
    assert section["kill"] == 53 + 1009
    assert section["failed"] == sum(found.values())
    failed = {process["pid"] == one.process.pid: process["failed"] for process in section["top_processes"]}
    assert failed == {True: section["failed"] - 31, False: 31}
    # a kernel that preempts a program skips it for who runs meanwhile on that CPU, whoever that is
    assert evidence["loss"]["causes"].keys() <= {"programs_skipped"}


def test_interrupted_calls(targeted):
    """19 calls that a signal handler interrupts return EINTR, which is not visible: they are counted as interrupted."""
    code = "signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)\nfor _ in range(19): signal.pause()\n"
    setup = "import signal; signal.signal(signal.SIGALRM, lambda *_: None)"
    evidence = targeted(f"{code}signal.setitimer(signal.ITIMER_REAL, 0)", setup).run(
        selection=Selection(("syscalls:errors",))
    )

    assert evidence["syscall_counts"]["pause"] == evidence["syscall_counts"]["interrupted"] == 19
    assert not [call for call, _ in pairs(evidence) if call == "pause"]


SECCOMP = """
import ctypes, struct
libc, PERSONALITY = ctypes.CDLL(None, use_errno=True), {personality}
def refuse():
    # load the number; is it personality's? answer EPERM; else allow
    code = [(0x20, 0, 0, 0), (0x15, 0, 1, PERSONALITY), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
    filters = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(filters)))
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, program, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
"""


def test_calls_that_seccomp_refuses(targeted):
    """They are never entered, so they are no calls; their 13 errors are seen all the same."""
    (number,) = (n for n, name in syscalls(platform.machine()).items() if name == "personality")
    code = "for _ in range(17): libc.personality(-1)\nrefuse()\nfor _ in range(13): libc.personality(-1)"
    evidence = targeted(code, SECCOMP.format(personality=number)).run(selection=Selection(("syscalls:errors",)))

    assert evidence["syscall_counts"]["personality"] == 17
    assert pairs(evidence)["personality", "EPERM"] == 13


def test_errors_have_to_be_asked_for(targeted):
    """Without, there is the reason, and no zero."""
    section = targeted("").run(selection=Selection(("syscalls",)))["syscall_counts"]

    assert section.keys() & {"errors", "failed", "interrupted"} == set()
    assert section["unavailable"].keys() == {"errors", "failed", "interrupted"}
    assert "syscalls:errors" in section["unavailable"]["errors"]
    assert all("failed" not in process for process in section["top_processes"])
