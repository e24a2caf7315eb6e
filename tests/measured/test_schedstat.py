"""The ledger's time of a target's living threads, compared with the kernel's own account of them."""

import subprocess
import sys

import pytest
from asleep import until_asleep
from emulation import EMULATED

from chainbench_agent.evidence.model import Target
from chainbench_agent.model.run_request import RunRequest

pytestmark = pytest.mark.bpf


def test_living_threads_against_schedstat(collector, run):
    """Threads that outlive the run have the on-CPU and run-queue time of schedstat."""
    code = (
        "import time\nprint(flush=True)\nwhile True:\n end = time.monotonic() + 0.01\n"
        " while time.monotonic() < end: pass\n time.sleep(0.005)"
    )
    command = ["taskset", "-c", "0", sys.executable, "-c", code]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        process.stdout.readline()
    collector.start(RunRequest(target=Target(kind="pid", pid=processes[0].pid)))
    subprocess.run(["sleep", "5" if EMULATED else "1"], check=True)
    collector.stop()
    for process in processes:
        with process:
            process.kill()

    checks = collector.evidence(run).as_json()["cross_check"]
    for name in ("ledger.on_cpu_ms", "ledger.runnable_ms"):
        check = checks[name]
        # the kernel is read a moment before the run begins, and a moment after it ends
        assert check["ebpf"] == pytest.approx(check["kernel"], rel=0.15, abs=15), name
    assert checks["ledger.on_cpu_ms"]["ebpf"] > 100


def test_short_sleeps_against_schedstat(collector, run):
    """The kernel has some µs after each wake-up on the CPU that are on the run queue here: the sum is the same."""
    code = "import time\ninput()\nfor _ in range(2003): time.sleep(0.00005)\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-uc", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        until_asleep(process.pid)
        collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        until_asleep(process.pid)
        collector.stop()
        process.communicate(b"\n")

    evidence = collector.evidence(run).as_json()
    on_cpu, runnable = (evidence["cross_check"][f"ledger.{name}_ms"] for name in ("on_cpu", "runnable"))
    ours, theirs = on_cpu["ebpf"] + runnable["ebpf"], on_cpu["kernel"] + runnable["kernel"]
    assert ours == pytest.approx(theirs, rel=0.1, abs=evidence["ledger"]["unexplained_ms"])
    assert "from its wake-up on" in on_cpu["note"]
