"""Each kind of wait, made on this kernel for a known time, is in its category, whatever call it is made with."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from emulation import EMULATED
from packages import require

from chainbench_agent.evidence.model import Target
from chainbench_agent.model.run_request import RunRequest

pytestmark = pytest.mark.bpf

WAIT_MS = 300
"""How long each of the waits lasts that another thread or process of the target ends."""

SETUP = f"""
import os, sys, time
sys.path.append({str(Path(__file__).parent)!r})
import waits_made
waits_made.WAIT_S = {WAIT_MS / 1000}
"""

WAITS = {
    "tty": ("terminal", "n_tty_read"),
    "inotify": ("event", "inotify_read"),
    "eventfd": ("event", "eventfd_read"),
    "timerfd": ("event", "timerfd_read"),
    "signalfd": ("event", "signalfd_"),
    "semaphore": ("ipc", "semtimedop"),
    "message_queue": ("ipc", "do_msgrcv"),
    "posix_message_queue": ("ipc", "wq_sleep"),
    "unix_socket": ("network", "unix_"),
    "tcp": ("network", "sk_wait_data"),
    "pipe": ("pipe", "pipe_read"),
    "poll": ("poll", ""),
    "flock": ("futex/lock", "lock"),
    "wait": ("wait_child", "kernel_wait4"),
    "sigtimedwait": ("sleep", "do_sigtimedwait"),
}
"""Function of `waits_made.py` → the category of its wait, and what is in the name of the kernel's function."""


def categories(line):
    return {category["category"]: category["ms"] for category in line["blocked"]}


def main_thread(one, evidence):
    (line,) = [line for line in evidence["ledger"]["threads"] if line["tid"] == one.process.pid]
    return line


@pytest.mark.parametrize("wait", WAITS)
def test_a_wait_has_its_category(targeted, wait):
    """The time that it lasted at least, and hardly any time of the thread is in no category."""
    category, function = WAITS[wait]
    one = targeted(f"waits_made.{wait}()", SETUP)

    line = main_thread(one, one.run_seen())

    (found,) = [found for found in line["blocked"] if found["category"] == category]
    longest = found["reasons"][0]
    assert function in longest["reason"]
    assert longest["ms"] >= 0.9 * WAIT_MS
    assert categories(line).get("other", 0) <= 0.05 * line["wall_ms"]


def test_membarrier_waits_for_the_kernel(targeted):
    """It is RCU that it waits for, whose functions differ between kernels."""
    one = targeted("for _ in range(20): waits_made.membarrier()", SETUP)

    line = main_thread(one, one.run_seen())

    blocked = categories(line)
    assert blocked.pop("kernel_lock") > 0
    assert blocked.get("other", 0) <= 0.05 * line["wall_ms"]


SLEEPS = f"end = time.monotonic() + {0.5 + WAIT_MS / 1000}\nwhile time.monotonic() < end: time.sleep(0.001)"


def held(one, collector, run, hold, release):
    """The main thread's categories, of a run in which the target was held for WAIT_MS."""
    collector.start(RunRequest(target=Target(kind="pid", pid=one.process.pid)))
    one.process.stdin.write("\n")
    one.process.stdin.flush()
    time.sleep(0.1)
    hold()
    time.sleep(WAIT_MS / 1000)
    release()
    one.process.wait()
    collector.stop()
    return categories(main_thread(one, collector.evidence(run).as_json()))


def assert_stopped(blocked):
    """The rest of the time it slept."""
    assert blocked["stopped"] >= 0.95 * WAIT_MS
    assert blocked["sleep"] <= 0.5 * 1000 + (200 if EMULATED else 50)


def test_stopped_by_a_signal(targeted, collector, run):
    """SIGSTOP while the target sleeps for a millisecond at a time."""
    one = targeted(SLEEPS, SETUP)
    pid = one.process.pid

    assert_stopped(held(one, collector, run, lambda: os.kill(pid, 19), lambda: os.kill(pid, 18)))


def freezers():
    """Directory of a hierarchy in which processes can be frozen → the file, the words for it, and for letting go on."""
    v1 = Path("/sys/fs/cgroup/freezer")
    if v1.is_dir():
        yield pytest.param((v1, ("freezer.state", "FROZEN", "THAWED")), id="v1")
    v2 = Path("/sys/fs/cgroup/unified")
    yield pytest.param((v2 if v2.is_dir() else v2.parent, ("cgroup.freeze", "1", "0")), id="v2")


@pytest.mark.parametrize("freezer", list(freezers()))
def test_frozen(targeted, collector, run, freezer):
    """By its cgroup, as `docker pause` does."""
    hierarchy, (file, freeze, thaw) = freezer
    group = hierarchy / "chainbench-test-frozen"
    group.mkdir()
    one = targeted(SLEEPS, SETUP)
    (group / "cgroup.procs").write_text(str(one.process.pid))
    try:
        blocked = held(
            one, collector, run, lambda: (group / file).write_text(freeze), lambda: (group / file).write_text(thaw)
        )
    finally:
        (group / file).write_text(thaw)
        one.close()
        group.rmdir()

    assert_stopped(blocked)


def test_traced(collector, run):
    """Under strace a call's time is the tracer's: none of it is that call's category."""
    require("strace")
    code = """
import os, sys
fd = os.memfd_create("x")
print(flush=True)
sys.stdin.read(1)
for _ in range(300): os.fsync(fd)
"""
    command = ["strace", "-f", "-o", "/dev/null", sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
        process.communicate(b"x")
        collector.stop()

    evidence = collector.evidence(run).as_json()
    assert evidence["syscall_counts"]["fsync"] == 300
    fsyncs = [
        (category["category"], reason["ms"])
        for category in evidence["ledger"]["blocked"]
        for reason in category["reasons"]
        if reason["syscall"] == "fsync"
    ]
    assert {category for category, _ in fsyncs} == {"stopped"}


@pytest.fixture(scope="module")
def io_uring(tmp_path_factory):
    """`io_uring.c` as a program; see there."""
    require("cc")
    program = tmp_path_factory.mktemp("program") / "io_uring"
    subprocess.run(["gcc", "-O1", "-w", Path(__file__).with_name("io_uring.c"), "-o", program], check=True)
    return program


@pytest.mark.parametrize("what", ["read", "receive", "timeout"])
def test_io_uring(collector, run, io_uring, tmp_path, what):
    """Waits for completions are divided by what completed, although the kernel marks all of them as waits for I/O."""
    (tmp_path / "file").write_bytes(os.urandom(4 << 20))
    os.sync()
    command = [io_uring, what, tmp_path / "file"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        collector.start(RunRequest(target=Target(kind="pid", pid=process.pid)))
        process.communicate(b"x")
        collector.stop()

    evidence = collector.evidence(run).as_json()
    waits = {
        found["category"]: sum(reason["ms"] for reason in found["reasons"] if reason["syscall"] == "io_uring_enter")
        for found in evidence["ledger"]["blocked"]
    }
    category = {"read": "disk", "receive": "poll", "timeout": "sleep"}[what]
    assert waits[category] >= 0.9 * sum(waits.values()) > 0


FILE_SYSTEMS = {"xfs": ["mkfs.xfs", "-q"], "ext4": ["mke2fs", "-q", "-t", "ext4"], "btrfs": ["mkfs.btrfs", "-q"]}


def need_file_system(name):
    subprocess.run(["modprobe", "-q", name], check=False)
    if name not in Path("/proc/filesystems").read_text().split():
        pytest.skip(f"This kernel has no {name}.")


@pytest.fixture(params=FILE_SYSTEMS)
def mounted(request, tmp_path):
    """A file system of that kind, on a loop device."""
    require(FILE_SYSTEMS[request.param][0])
    need_file_system(request.param)
    image, directory = tmp_path / "image", tmp_path / "mounted"
    directory.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([*FILE_SYSTEMS[request.param], image], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", image, directory], check=True)
    yield directory
    subprocess.run(["umount", directory], check=True)


SYNCED = {
    "fsync": "for i in range(31): os.pwrite(fd, b'x' * 5000, i * 5000); os.fsync(fd)",
    "O_DSYNC": "for i in range(31): os.pwrite(fd, b'x' * 5000, i * 5000)",
}


@pytest.mark.parametrize("how", SYNCED)
def test_a_file_system_s_log_is_the_disk(targeted, mounted, how):
    """One function has one category, whether fsync() waits in it or a write with O_DSYNC."""
    flags = "os.O_RDWR | os.O_CREAT" + (" | os.O_DSYNC" if how == "O_DSYNC" else "")
    one = targeted(f"fd = os.open({str(mounted / 'file')!r}, {flags})\n{SYNCED[how]}", SETUP)

    line = main_thread(one, one.run_seen())

    blocked = categories(line)
    assert blocked["disk"] >= 0.9 * sum(ms for name, ms in blocked.items() if name != "pipe")


@pytest.fixture
def behind_fuse(tmp_path):
    """A directory whose files a program in user space serves."""
    require("bindfs")
    need_file_system("fuse")
    below, above = tmp_path / "below", tmp_path / "above"
    below.mkdir()
    above.mkdir()
    with subprocess.Popen(["bindfs", "-f", below, above]) as server:
        while not os.path.ismount(above):
            time.sleep(0.01)
        above.with_name("server").write_text(str(server.pid))
        yield above
        subprocess.run(["umount", above], check=True)


@pytest.mark.parametrize("how", SYNCED)
def test_a_file_behind_fuse_is_the_disk(targeted, behind_fuse, how):
    """Whatever the call: its answer comes from a program, which the reason says."""
    flags = "os.O_RDWR | os.O_CREAT" + (" | os.O_DSYNC" if how == "O_DSYNC" else "")
    one = targeted(f"fd = os.open({str(behind_fuse / 'file')!r}, {flags})\n{SYNCED[how]}\nos.close(fd)", SETUP)

    line = main_thread(one, one.run_seen())

    (disk,) = [found for found in line["blocked"] if found["category"] == "disk"]
    assert disk["reasons"][0]["reason"] == "request_wait_answer"
    drawn = [reason["ms"] for found in line["blocked"] for reason in found["reasons"] if reason["sampled_percent"]]
    assert disk["ms"] >= 0.9 * sum(drawn)  # of a millisecond in all, none of a call's waits may have been drawn


def test_a_lock_of_the_kernel_that_no_table_knows(targeted, behind_fuse):
    """One thread writes and is not answered, with the file's lock held; an fsync() of another waits for that lock.

    Its stack ends in `fuse_fsync`, in which threads wait for the answer of an fsync(), too.
    """
    server = int(behind_fuse.with_name("server").read_text())
    one = targeted(
        f"""
fd = os.open({str(behind_fuse / "file")!r}, os.O_RDWR | os.O_CREAT)
os.kill({server}, 19)
writer = threading.Thread(target=lambda: os.pwrite(fd, b"x", 0))
writer.start(); time.sleep(0.05)
waits_made.later(lambda: os.kill({server}, 18))
os.fsync(fd)
writer.join(); os.close(fd)
""",
        SETUP + "import threading\n",
    )

    line = main_thread(one, one.run_seen())

    (lock,) = [found for found in line["blocked"] if found["category"] == "kernel_lock"]
    assert lock["reasons"][0]["reason"] == "fuse_fsync"
    assert lock["ms"] >= 0.9 * WAIT_MS
