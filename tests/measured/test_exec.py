"""Programs and processes are counted one by one."""

import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.bpf

TRUE = shutil.which("true")


def test_every_program_is_counted_under_its_name(measure, python, tmp_path):
    """53 starts of a program that only we have are 53, and no fewer are in the total."""
    program = str(shutil.copy("/bin/true", tmp_path / "cb-true-53"))

    evidence = measure(lambda: python(f"import subprocess\nfor _ in range(53): subprocess.run([{program!r}])"))

    assert {"command": "cb-true-53", "count": 53} in evidence["exec"]["top_commands"]
    assert evidence["exec"]["exec_count"] >= 53
    assert evidence["exec"]["forks"] >= 53


@pytest.mark.usefixtures("noise")
def test_programs_that_could_not_be_executed(targeted):
    """On a busy machine: 11 missing files, 7 files that are not programs, three times two directories without it."""
    code = f"""
os.environ["PATH"] = "/nowhere/at/all:/no/such/directory:{Path(TRUE).parent}"
for path in ["/no/such/program"] * 11 + ["/etc/passwd"] * 7:
    try: os.execv(path, ["x"])
    except OSError: pass
for _ in range(3):
    child = os.fork()
    if child == 0: os.execvp("true", ["true"])
    os.waitpid(child, 0)
"""
    one = targeted(code, "import os")
    evidence = one.run()

    exec_ = evidence["exec"]
    assert (exec_["exec_failures"], exec_["exec_count"]) == (11 + 7 + 6, 3)
    assert evidence["syscall_counts"]["execve"] == exec_["exec_failures"] + exec_["exec_count"]
    by_process = [process["exec_failures"] for process in exec_["top_processes"] if process["pid"] != one.process.pid]
    assert by_process == [2, 2, 2]


def test_threads_are_not_counted_as_processes(measure, python):
    """23 threads of one process are 23 threads, also by the kernel's count."""
    code = "import threading\nfor _ in range(23): t = threading.Thread(target=int); t.start(); t.join()"

    evidence = measure(lambda: python(code))

    assert evidence["exec"]["threads_created"] >= 23
    check = evidence["cross_check"]["exec.forks"]
    # the agent's own, and those of threads whose events this kernel does not show
    assert check["ebpf"] <= check["kernel"] <= check["ebpf"] + 20
