"""Files of /proc with names of any bytes in them."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chainbench_agent.abi.kernel_text import text_of
from chainbench_agent.host import procfs
from chainbench_agent.host.pid_namespaces import local_pid
from chainbench_agent.kernel.targets.process_tree import all_processes, processes_of_tree

NAMES = (
    b"a\nb",
    b"x) S 1 1",
    b"Tgid:\t1",
    b"NSpid:\t7\t7",
    b"\nTgid:\t1",
    b"",
    b" ",
    b"\\n\\x41",
    "бенчмарк".encode()[:15],
    b"\xff\xfe",
    b"\x85\xe2\x80\xa8(",
)
NAMED = """
import ctypes, sys
ctypes.CDLL(None).prctl(15, bytes.fromhex(sys.argv[1]), 0, 0, 0)
print(flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=NAMES, ids=ascii)
def named(request):
    """(name, process): a process that has given itself this name."""
    command = [sys.executable, "-c", NAMED, request.param.hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield request.param, process.pid
        process.stdin.close()


def test_a_process_may_have_any_name(named):
    """Its fields are found, its name is whole, and it is among all processes."""
    name, pid = named
    directory = f"/proc/{pid}"

    assert procfs.stat(directory).command == text_of(name)
    assert procfs.command_name(directory) == text_of(name)
    assert procfs.stat(directory).parent == os.getpid()
    assert procfs.stat(directory).session == os.getsid(pid)
    assert procfs.stat(directory).process_group == os.getpgid(pid)
    status = procfs.status(directory)
    assert (status["Tgid"], status["NSpid"].split()[0], status["PPid"]) == (str(pid), str(pid), str(os.getpid()))
    assert processes_of_tree(pid) == {pid}
    assert pid in all_processes()
    assert local_pid(pid, None) == pid


def test_a_thread_has_a_name_of_its_own():
    task = Path("/proc/thread-self").resolve()
    before = (task / "comm").read_bytes()
    try:
        ctypes.CDLL(None).prctl(15, b"x) R 1 (\n\xd0", 0, 0, 0)
        assert procfs.stat(task).command == "x) R 1 (\n\\xd0"
    finally:
        (task / "comm").write_bytes(before)


def test_a_mount_point_may_have_any_name(tmp_path):
    """In mountinfo spaces, newlines and backslashes are octal numbers, other bytes are not."""
    (tmp_path / "mountinfo").write_bytes(
        b"25 1 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n"
        b"31 25 0:27 /../svc /mnt/a\\040b\\011c\\012d\\134e\xe9 rw - cgroup2 cgroup2 rw,nsdelegate\n"
    )

    assert list(procfs.mounts(tmp_path)) == [
        procfs.Mount("/", Path("/sys"), "sysfs"),
        procfs.Mount("/../svc", Path("/mnt/a b\tc\nd\\e\udce9"), "cgroup2"),
    ]


def test_the_cgroup_of_a_process_is_that_of_version_2(tmp_path):
    """Its name may be any bytes."""
    (tmp_path / "cgroup").write_bytes(b"12:cpu,cpuacct:/x\n1:name=0::/no:/y\n0::/a b/\xe9 (deleted)\n")
    assert procfs.cgroup(tmp_path) == b"/a b/\xe9"
    (tmp_path / "cgroup").write_bytes(b"12:cpu,cpuacct:/x\n")
    assert procfs.cgroup(tmp_path) is None


def test_a_process_that_has_ended_is_an_oserror():
    for read in (procfs.stat, procfs.status, procfs.command_name, procfs.cgroup):
        with pytest.raises(OSError, match="No such file"):
            read("/proc/0")
    assert procfs.first_word("/proc/0/wchan") == ""
