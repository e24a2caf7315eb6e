"""Descendants of a process and processes near it, in a /proc that the tests fill and in this kernel's."""

import os
import subprocess
import sys
import time

import pytest

from chainbench_agent.evidence.model import Outsider
from chainbench_agent.host.procfs import command_name
from chainbench_agent.kernel.targets import process_tree
from chainbench_agent.kernel.targets.process_tree import NearbyProcesses, nearby_processes, processes_of_tree

FORKED = 0x40
RANDOMIZED = 0x400000
KERNEL = 0x200000


@pytest.fixture
def service(proc):
    """10 executed a program, 11 is its child, and 1 adopts processes."""
    proc.add(1, 0, flags=RANDOMIZED, stack=900)
    proc.add(10, 1, flags=RANDOMIZED, stack=700)
    proc.add(11, 10, flags=RANDOMIZED | FORKED, stack=700)
    return proc


def test_descendants_are_found_by_their_parents(service):
    service.add(12, 11)
    service.add(20, 1)

    assert processes_of_tree(10) == {10, 11, 12}
    assert processes_of_tree(11) == {11, 12}
    assert processes_of_tree(99) == set()


def test_a_command_may_look_like_anything(proc):
    """A command that looks like the fields of `stat` misleads nobody: all generations, and no other process."""
    for pid, parent in ((1, 0), (10, 1), (11, 10), (12, 11), (13, 11), (20, 1), (21, 20)):
        proc.add(pid, parent, command=f") R {20} (")

    assert processes_of_tree(10) == {10, 11, 12, 13}
    assert processes_of_tree(21) == {21}
    assert processes_of_tree(99) == set()


def test_a_process_that_ends_meanwhile_is_left_out(proc):
    """Its children have another parent then, and it has none."""
    for pid, parent in ((10, 1), (11, 10), (12, 10)):
        proc.add(pid, parent)
    (proc.path / "11/stat").unlink()

    assert processes_of_tree(10) == {10, 12}


def test_a_daemon_without_its_parents_is_found_by_its_addresses(service):
    """It is in the tree of the process that executed its program, with its own children."""
    service.add(20, 1, flags=RANDOMIZED | FORKED, stack=700)
    service.add(21, 20, flags=RANDOMIZED, stack=701)
    service.add(22, 1, flags=RANDOMIZED | FORKED, stack=701)

    assert processes_of_tree(10) == {10, 11, 20, 21, 22}
    assert nearby_processes(10, ()) == NearbyProcesses()


@pytest.mark.parametrize(
    "daemon",
    [
        {"flags": RANDOMIZED | FORKED, "stack": 700, "heap": 6},  # of another program whose stack begins there
        {"flags": RANDOMIZED, "stack": 700},  # it has executed a program, which happens to begin there
        {"flags": RANDOMIZED | FORKED, "stack": 0, "heap": 0},  # we may not know
    ],
)
def test_a_daemon_without_proof_is_not_in_the_tree(service, daemon):
    service.add(20, 1, **daemon)

    assert processes_of_tree(10) == {10, 11}


def test_a_process_that_was_forked_itself_claims_no_orphans(service):
    """Another process of that program may have left the orphan, which is therefore named as outside."""
    service.add(20, 1, flags=RANDOMIZED | FORKED, stack=700)

    assert processes_of_tree(11) == {11}
    assert nearby_processes(11, ()).shown == (Outsider(pid=20, command="sh", shares="program image"),)


def test_addresses_that_are_not_random_prove_nothing(proc):
    """Every process of a program has the same."""
    proc.add(1, 0)
    proc.add(10, 1, flags=0, stack=700)
    proc.add(20, 1, flags=FORKED, stack=700)

    assert processes_of_tree(10) == {10}


def test_processes_near_the_tree_are_named(service):
    """By session, and by cgroup unless it is the root; processes that may have lost their parents come first."""
    group = b"0::/run-1\n"
    (service.path / "10/cgroup").write_bytes(group)
    service.add(30, 1, start_ticks=50, session=10, command="older")
    service.add(31, 30, session=10, command="sibling")
    service.add(32, 1, cgroup=group, command="daemon")
    service.add(33, 30, cgroup=group, command="beside")
    service.add(34, 1, command="elsewhere")
    service.add(35, 2, flags=KERNEL, session=10, command="kworker")
    service.add(36, 1, session=10, command="orphan")
    service.add(37, 1, session=10, command="agent")

    assert nearby_processes(10, {37}) == NearbyProcesses(
        (
            Outsider(pid=36, command="orphan", shares="session"),
            Outsider(pid=32, command="daemon", shares="cgroup"),
            Outsider(pid=31, command="sibling", shares="session"),
            Outsider(pid=30, command="older", shares="session"),
            Outsider(pid=33, command="beside", shares="cgroup"),
        ),
        0,
    )


def test_ancestors_are_not_named(proc):
    """They started the target, so they are known."""
    for pid, parent in ((1, 0), (5, 1), (6, 5), (7, 6)):
        proc.add(pid, parent, session=5)

    assert nearby_processes(7, ()) == NearbyProcesses()
    assert nearby_processes(99, ()) == NearbyProcesses()


def test_an_orphan_of_a_sibling_is_named(proc):
    """It is not known which of two processes that were forked from one program has left the orphan."""
    proc.add(1, 0)
    for pid in (10, 20):
        proc.add(pid, 1, flags=FORKED, stack=700)

    assert nearby_processes(10, ()).shown == (Outsider(pid=20, command="sh", shares="program image"),)


def test_more_than_ten_are_only_counted(proc):
    proc.add(10, 1, session=10)
    for pid in range(20, 20 + process_tree.SHOWN + 3):
        proc.add(pid, 1, session=10)

    found = nearby_processes(10, ())
    assert len(found.shown) == process_tree.SHOWN
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


def test_daemons_of_this_kernel_are_found_or_named():
    """A daemon that has executed a program is outside of the tree, and named; one that has not is in the tree."""
    with subprocess.Popen([sys.executable, "-c", DAEMON], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        own, executed = daemons = [int(process.stdout.readline()) for _ in range(2)]
        process.stdout.readline()
        try:
            while command_name(f"/proc/{executed}") != "sleep":  # until then it is in the tree
                time.sleep(0.01)
            assert processes_of_tree(process.pid) == {process.pid, own}
            assert executed in {line.pid for line in nearby_processes(process.pid, ()).shown}
        finally:
            for pid in daemons:
                os.kill(pid, 9)
            process.stdin.close()
