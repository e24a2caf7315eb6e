"""With a target, counts are equal to the truth on a busy machine: not near it, equal."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chainbench_agent.errors import InputError
from chainbench_agent.evidence.model import Target
from chainbench_agent.kernel.target import cgroup2_mount

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("noise")]


def test_system_calls_by_name(targeted):
    """1,009 getppid, 23 fsync, 101 lseek: exactly, whatever the others do."""
    code = """
import os, tempfile
with tempfile.TemporaryFile(buffering=0) as file:
    fd = file.fileno()
    for _ in range(1009): os.getppid()
    for _ in range(23): os.pwrite(fd, b"x", 0); os.fsync(fd)
    for _ in range(101): os.lseek(fd, 7, os.SEEK_SET)
"""
    counts = targeted(code).run()["syscall_counts"]

    assert (counts["getppid"], counts["fsync"]) == (1009, 23)
    assert counts["lseek"] >= 101
    assert counts["pwrite64"] == 23


def test_processes_and_threads(targeted):
    """53 children, each of which runs a program, and 19 threads, at any distance below the target."""
    code = """
import os, subprocess, threading
for _ in range(53): subprocess.run(["/bin/true"])
for _ in range(19): t = threading.Thread(target=int); t.start(); t.join()
child = os.fork()
if child == 0:
    grandchild = os.fork()
    if grandchild == 0: os.execv("/bin/true", ["true"])
    os.waitpid(grandchild, 0); os._exit(0)
os.waitpid(child, 0)
"""
    evidence = targeted(code).run()

    assert evidence["exec"]["exec_count"] == 54
    assert evidence["exec"]["forks"] == 55
    assert evidence["exec"]["threads_created"] == 19
    assert evidence["exec"]["top_commands"] == [{"command": "true", "count": 54}]
    assert evidence["target"]["processes_seen"] == 1 + 55
    assert evidence["target"]["threads_seen"] == 1 + 55 + 19


def test_context_switches_against_rusage(targeted):
    """As many as getrusage says; one more, because the last switch of a thread comes after its last rusage."""
    code = """
import os, resource, time
for _ in range(101): time.sleep(0.001)
def switches(): r = resource.getrusage(resource.RUSAGE_SELF); return r.ru_nvcsw, r.ru_nivcsw
print(*switches(), flush=True)
os._exit(0)
"""
    one = targeted(code)
    time.sleep(0.5)  # until it has gone to sleep
    stat = dict(
        line.split(":\t") for line in Path(f"/proc/{one.process.pid}/status").read_text().splitlines() if ":\t" in line
    )
    before = int(stat["voluntary_ctxt_switches"]), int(stat["nonvoluntary_ctxt_switches"])

    cpu = one.run()["cpu"]
    voluntary, involuntary = (int(n) - b for n, b in zip(one.output.split(), before, strict=True))

    # the last switch, of which the process can tell no more, is voluntary; before it the print, and the exit, may wait
    assert voluntary + 1 <= cpu["voluntary_switches"] <= voluntary + 40
    assert involuntary <= cpu["involuntary_switches"] <= involuntary + 40
    assert voluntary > 50  # on a slow machine a millisecond may be over before the thread is off its CPU


def test_block_requests_and_their_owner(targeted, tmp_path):
    """101 direct reads are 101 requests, while others write hundreds to the same disk."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(101 * 4096))
    os.sync()
    code = f"""
import mmap, os
fd = os.open({str(path)!r}, os.O_RDONLY | os.O_DIRECT)
buffer = mmap.mmap(-1, 4096)
for i in range(101): os.preadv(fd, [buffer], i * 4096)
"""
    count = targeted(code).run()["biolatency"]["count"]

    assert 101 <= count <= 106  # and what of the interpreter was not in the page cache


def test_what_others_do_is_not_counted(targeted):
    """A target that only sleeps has done next to nothing, however busy the machine."""
    evidence = targeted("import time; time.sleep(0.5)").run()

    assert evidence["exec"]["exec_count"] == evidence["exec"]["forks"] == 0
    assert evidence["biolatency"]["count"] == 0
    assert evidence["syscall_counts"]["fsync"] == 0
    assert evidence["ledger"]["on_cpu_ms"] < 0.5 * evidence["ledger"]["wall_ms"]
    assert evidence["cpu"]["scope"]["interrupts"] == "machine"


def test_descendants_that_were_there_before(collector, run):
    """Children and grandchildren from before the run belong to the target as much as later ones."""
    code = (
        "import os, sys, time\nr, w = os.pipe()\nif os.fork() == 0:\n os.fork()\n os.read(r, 1)\n"
        " import ctypes\n for _ in range(13): ctypes.CDLL(None).personality(0xffffffff)\n os._exit(0)\n"
        "print(flush=True); sys.stdin.readline(); os.write(w, b'xx'); os.wait(); time.sleep(0.3)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        time.sleep(0.2)
        collector.start(Target(kind="pid", pid=process.pid))
        process.communicate(b"\n")
        collector.stop()

    evidence = collector.evidence(run).as_json()
    assert evidence["syscall_counts"]["personality"] == 26
    assert evidence["target"]["processes_seen"] == 3


@pytest.fixture
def group():
    mount = cgroup2_mount()
    group = mount / "chainbench-test-target"
    (group / "below").mkdir(parents=True)
    yield group
    (group / "below").rmdir()
    group.rmdir()


def moving(group):
    return f"def move(to): open({str(group)!r} + to + '/cgroup.procs', 'w').write(str(os.getpid()))\n"


def test_a_cgroup_and_what_is_below_it(targeted, group):
    """What joins is counted from then on, in the group and below it; what leaves is not any more."""
    code = f"""
import ctypes, os, time
c = ctypes.CDLL(None)
{moving(group)}
def call(n):
    time.sleep(0.01)  # a switch: membership is looked at when a thread comes onto a CPU
    for _ in range(n): c.personality(0xffffffff)
call(1000)
move(''); call(7)
move('/below'); call(11)
move('/..'); call(100)
move(''); call(13)
move('/..')
"""
    evidence = targeted(code).run(Target(kind="cgroup", cgroup=str(group)))

    assert evidence["syscall_counts"]["personality"] == 7 + 11 + 13


def test_no_such_target(collector):
    """The field and the remedy are named, and no run is on."""
    with pytest.raises(InputError, match="pid: there is no process 4194303"):
        collector.start(Target(kind="pid", pid=4194303))
    with pytest.raises(InputError, match="cgroup: there is no cgroup /no/such"):
        collector.start(Target(kind="cgroup", cgroup="/no/such"))
