"""Programs and processes are counted one by one."""

import shutil

import pytest

pytestmark = pytest.mark.bpf


def test_every_program_is_counted_under_its_name(measure, python, tmp_path):
    """53 starts of a program that only we have are 53, and no fewer are in the total."""
    program = str(shutil.copy("/bin/true", tmp_path / "cb-true-53"))

    evidence = measure(lambda: python(f"import subprocess\nfor _ in range(53): subprocess.run([{program!r}])"))

    assert {"command": "cb-true-53", "count": 53} in evidence["exec"]["top_commands"]
    assert evidence["exec"]["exec_count"] >= 53
    assert evidence["exec"]["forks"] >= 53


def test_a_failed_exec_is_no_program(measure, python):
    """`execve` of what is not there is a system call, but starts nothing."""
    code = "import os\nfor _ in range(11):\n try: os.execv('/no/such/program', ['x'])\n except OSError: pass"

    evidence = measure(lambda: python(code))

    assert evidence["syscall_counts"]["execve"] >= evidence["exec"]["exec_count"] + 11


def test_threads_are_no_processes(measure, python):
    """23 threads of one process are 23 threads; the kernel's own count agrees."""
    code = "import threading\nfor _ in range(23): t = threading.Thread(target=int); t.start(); t.join()"

    evidence = measure(lambda: python(code))

    assert evidence["exec"]["threads_created"] >= 23
    check = evidence["cross_check"]["exec.forks"]
    # the agent's own, and those of threads whose events this kernel does not show
    assert check["ebpf"] <= check["kernel"] <= check["ebpf"] + 20
