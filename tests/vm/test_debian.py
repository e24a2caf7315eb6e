"""The bpf tests pass on Debian's kernels too, each booted under QEMU.

Everything takes 10 to 20 times as long in a guest as here, so
- pytest is given the files that have bpf tests, as to collect all the others takes a guest half a minute;
- tests marked `portable` prove something of this program that no kernel can change (an agent's answer to a signal, the
  reason when a module does not compile), or take a guest minutes. They run here only; all others run on each kernel.
"""

import os
import re
import shlex
from pathlib import Path

import pytest
from debian_kernel import SERIES, obtain, release
from ended import ended
from guest import COMMAND_SECONDS, REPO, boot, tail
from junit import verdicts

TESTS = REPO / "tests"
KERNELS = tuple(SERIES)
EVERYWHERE = "support cpu exec syscalls offcpu latency network io block locks lock_order lock_hold memory"
MORE = {"5.10": "cpu_quota", "6.1": "target ledger waits", "6.12": "top_processes"}
NEWEST = {"7.2": "support cpu exec syscalls offcpu latency network io block locks"}
"""The files that run by default, in 10 minutes for each kernel; CHAINBENCH_VM_ALL=1 runs every one.

On the newest kernel threads are preempted in programs, and some exact counts fall short: the other files are left out.
"""
ALL = os.environ.get("CHAINBENCH_VM_ALL") == "1"
FETCH_SECONDS = 600
PYTEST = shlex.split("""
    env CHAINBENCH_REQUIRE_BPF=1 python -m pytest -v --timeout=900 --durations=10 --color=no
    -p no:cacheprovider --junitxml=/results/junit.xml -o junit_logging=all -o junit_log_passing_tests=false
""")


def bpf_files() -> list[str]:
    """The files in which that mark is set."""
    files = (path for path in TESTS.rglob("test_*.py") if path.parent != Path(__file__).parent)
    return sorted(str(path.relative_to(REPO)) for path in files if re.search(r"\bmark\.bpf\b", path.read_text()))


def in_guest(name: str, results: Path) -> int:
    files = NEWEST.get(name) or f"{EVERYWHERE} {MORE[name]}"
    chosen = [f"tests/measured/test_{file}.py" for file in files.split()]
    return boot(obtain(name), results, [*PYTEST, "-m", "bpf and not portable", *(bpf_files() if ALL else chosen)])


@pytest.mark.vm
@pytest.mark.timeout(len(SERIES) * (FETCH_SECONDS + COMMAND_SECONDS + 60))
@pytest.mark.parametrize("name", KERNELS)
def test_bpf_tests_pass(name, guest):
    """Every bpf test runs and passes on the kernel, without a skip."""
    results, status = ended(*guest)
    console = tail(results / "console.log")
    assert (results / "uname").read_text().strip() == release(obtain(name))
    assert (results / "junit.xml").exists(), f"pytest ended with status {status}. {console}"
    found = verdicts((results / "junit.xml").read_text())
    wrong = {test: text for test, text in found.items() if text}
    if wrong:
        details = "\n\n".join(f"--- {test}\n{text}" for test, text in wrong.items())
        summary = f"{len(wrong)} of {len(found)} bpf tests did not pass on {name}:"
        pytest.fail(f"{summary}\n\n{details}\n\n{console}", pytrace=False)
    assert found, f"No bpf test ran. {console}"
    assert status == 0, console


def test_the_files_with_bpf_tests_are_found():
    """Also if the mark is in a list or above a single test, but not files of this directory."""
    found = bpf_files()

    assert {"tests/measured/test_target.py", "tests/measured/test_cpu.py", "tests/agent/test_agent.py"} <= set(found)
    assert not [file for file in found if file.startswith("tests/vm/")]
