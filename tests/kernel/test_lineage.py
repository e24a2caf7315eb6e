"""Who descends from a process: told from a /proc of our own making, and by this kernel."""

import os
import struct
import subprocess
import sys

import pytest

from chainbench_agent.evidence.model import Outsider
from chainbench_agent.kernel import lineage
from chainbench_agent.kernel.lineage import Outside, outside, process_tree

FORKED = 0x40
KERNEL = 0x200000
NOBODY = b"0::/\n"


class Proc:
    """`add(pid, parent)` makes a process."""

    def __init__(self, path):
        self.path = path

    def add(self, pid, parent, **more):
        """`random`: what the kernel gave its program, in its memory at 64."""
        defaults = {
            "flags": 0,
            "stack": 0,
            "session": pid,
            "born": 100,
            "random": b"",
            "cgroup": NOBODY,
            "command": "sh",
        }
        flags, stack, session, born, random, cgroup, command = (defaults | more).values()
        directory = self.path / str(pid)
        directory.mkdir()
        fields = ["S", parent, pid, session, 0, -1, flags, *[0] * 12, born, *[0] * 5, stack, *[0] * 24]
        (directory / "stat").write_text(f"{pid} ({command}) {' '.join(map(str, fields))}\n")
        (directory / "auxv").write_bytes(struct.pack("@6L", 9, 1, 25, 64, 0, 0))
        (directory / "mem").write_bytes(bytes(64) + random)
        (directory / "cgroup").write_bytes(cgroup)


@pytest.fixture
def proc(tmp_path, monkeypatch):
    monkeypatch.setattr(lineage, "PROC", tmp_path)
    return Proc(tmp_path)


OWN, OTHERS = b"0123456789abcdef", b"fedcba9876543210"


@pytest.fixture
def service(proc):
    """10 executed a program, 11 is its child; 1 adopts."""
    proc.add(1, 0, stack=900, random=OTHERS)
    proc.add(10, 1, stack=700, random=OWN)
    proc.add(11, 10, flags=FORKED, stack=700, random=OWN)
    return proc


def test_a_daemon_that_lost_its_parents(service):
    """It was forked from the program that the target runs; its own children come with it, whatever they run."""
    service.add(20, 1, flags=FORKED, stack=700, random=OWN)
    service.add(21, 20, stack=800, random=OTHERS)

    assert process_tree(10) == {10, 11, 20, 21}
    assert process_tree(11) == {11}  # executed nothing: 20 may be another child of 10


def test_a_daemon_of_a_descendant(service):
    """The one that a child's program has left behind, and what that one has left in turn."""
    service.add(12, 11, stack=800, random=OTHERS)
    service.add(20, 1, flags=FORKED, stack=800, random=OTHERS)
    service.add(21, 20, stack=600, random=b"f" * 16)
    service.add(30, 1, flags=FORKED, stack=600, random=b"f" * 16)

    assert process_tree(10) == {10, 11, 12, 20, 21, 30}


@pytest.mark.parametrize(
    "beside",
    [
        {"flags": FORKED, "stack": 700, "random": OTHERS},
        {"flags": FORKED, "stack": 704, "random": OWN},
        {"flags": 0, "stack": 700, "random": OWN},
        {"flags": FORKED, "stack": 0, "random": OWN},
        {"flags": FORKED, "stack": 700, "random": b""},
    ],
    ids=["another program", "another stack", "executed it itself", "hidden", "not readable"],
)
def test_who_only_looks_like_it(service, beside):
    """The same program started twice is no descent, without randomized addresses either."""
    service.add(20, 1, **beside)

    assert process_tree(10) == {10, 11}


def test_bytes_that_a_program_has_overwritten(proc):
    """Zeros say nothing: any program may have them."""
    for pid, flags in ((10, 0), (20, FORKED)):
        proc.add(pid, 1, flags=flags, stack=700, random=bytes(16))

    assert process_tree(10) == {10}


def test_who_is_near_and_outside(service):
    """By session, and by cgroup where that is not everybody's; first who may have lost its parents."""
    group = b"0::/run-1\n"
    (service.path / "10/cgroup").write_bytes(group)
    service.add(30, 1, born=50, session=10, command="older")
    service.add(31, 30, session=10, command="sibling")
    service.add(32, 1, cgroup=group, command="daemon")
    service.add(33, 30, cgroup=group, command="beside")
    service.add(34, 1, command="elsewhere")
    service.add(35, 2, flags=KERNEL, session=10, command="kworker")
    service.add(36, 1, session=10, command="orphan")
    service.add(37, 1, session=10, command="agent")

    assert outside(10, {37}) == Outside(
        (
            Outsider(pid=36, command="orphan", shares="session"),
            Outsider(pid=32, command="daemon", shares="cgroup"),
            Outsider(pid=31, command="sibling", shares="session"),
            Outsider(pid=30, command="older", shares="session"),
            Outsider(pid=33, command="beside", shares="cgroup"),
        ),
        0,
    )


def test_ancestors_are_not_told_of(proc):
    """They started the target: everybody knows them."""
    for pid, parent in ((1, 0), (5, 1), (6, 5), (7, 6)):
        proc.add(pid, parent, session=5)

    assert outside(7, ()) == Outside()
    assert outside(99, ()) == Outside()


def test_forked_beside_the_target(proc):
    """Of two that were forked from one program, it is not known which one left an orphan behind."""
    proc.add(1, 0)
    for pid in (10, 20):
        proc.add(pid, 1, flags=FORKED, stack=700, random=OWN)

    assert outside(10, ()).shown == (Outsider(pid=20, command="sh", shares="program image"),)


def test_many_are_counted(proc):
    proc.add(10, 1, session=10)
    for pid in range(20, 20 + lineage.SHOWN + 3):
        proc.add(pid, 1, session=10)

    found = outside(10, ())
    assert len(found.shown) == lineage.SHOWN
    assert found.not_shown == 3


DAEMON = """
import os, sys, time
def daemon(program):
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            program()
        print(pid, flush=True)
        os._exit(0)
    os.wait()
daemon(lambda: time.sleep(1000))
daemon(lambda: os.execvp("sleep", ["sleep", "1000"]))
print(flush=True)
sys.stdin.readline()
"""


def test_this_kernel():
    """A daemon of a process is in its tree; one that executes a program is no more to be known by its memory."""
    with subprocess.Popen([sys.executable, "-c", DAEMON], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        forked, executed = int(process.stdout.readline()), int(process.stdout.readline())
        process.stdout.readline()
        try:
            assert process_tree(process.pid) == {process.pid, forked}
            assert executed in {line.pid for line in outside(process.pid, ()).shown}
            assert {forked, executed} & process_tree(os.getpid()) == {forked}
        finally:
            for pid in (forked, executed):
                os.kill(pid, 9)
            process.stdin.close()
