"""Lock-order violations of real threads: a C program takes mutexes in the orders that it is told."""

import subprocess
import sys
from pathlib import Path

import pytest
from packages import require

from chainbench_agent.catalog.selection import Selection
from chainbench_agent.evidence.model import Target
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.probes.lock_order import edges_of, violations

pytestmark = pytest.mark.bpf

OPTION = "locks:order"
SELECTION = Selection(("locks", OPTION))
VIOLATIONS = "lock_order_violations"


@pytest.fixture
def locks(collector, lock_order, run):
    """`locks(*orders)` → the evidence of a run in which the program does these, and that of all of it."""

    def measured(*orders, program=None, target=None, loss=0):
        command = [program or lock_order(), *orders]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            collector.start(RunRequest(target=target or Target(kind="pid", pid=process.pid), selection=SELECTION))
            try:
                process.communicate("\n")
            finally:
                collector.stop()
        evidence = collector.evidence(run).as_json()
        assert evidence["loss"]["total"] == loss, evidence["loss"]
        return evidence["locks"]

    return measured


def functions(stack):
    return [frame.partition("+")[0] for frame in stack]


def test_two_orders(locks):
    """Reported though the threads never met, with the two mutexes, both threads, and where each wanted its second."""
    found = locks("ab", "ba")

    assert found[VIOLATIONS] == 1
    ((first, second),) = (cycle["edges"] for cycle in found["lock_order_cycles"])
    assert (first["held"], first["wanted"]) == (second["wanted"], second["held"])
    assert abs(int(first["held"], 16) - int(first["wanted"], 16)) == 40  # sizeof(pthread_mutex_t)
    assert first["tid"] != second["tid"]
    for edge in (first, second):
        assert functions(edge["stack"])[:2] == ["take", "in_order"]
        assert edge["stack"][0] == edge["held_at"]  # the same call took both
        assert edge["stack"][0].endswith("[lock_order-cc]")


@pytest.mark.parametrize(
    ("orders", "violations"),
    [
        ("ab ab abc bc ac", 0),
        ("ab bc ca", 1),
        ("ab ba bc cb", 2),
        ("AbA AbA", 0),
        ("AA bAA AAb", 1),
        ("ab b.a", 0),
        (".ab ba", 1),
        ("ab new ba", 0),
        ("wait", 0),
        ("wait ab", 1),
    ],
)
def test_orders(locks, orders, violations):
    """One order, also of recursive mutexes; circles; tried ones; another mutex at the same address; a condition."""
    assert locks(*orders.split())[VIOLATIONS] == violations


def test_how_many_were_taken(locks):
    """Two more by each of 503 threads; each also takes one of the C library's own when it ends."""
    few, many = locks(*["a"] * 503), locks(*["abc"] * 503)

    assert many["pthread_mutex_locks"] - few["pthread_mutex_locks"] == 2 * 503


def test_a_deadlock(locks):
    """One that comes about shows as well, while it lasts."""
    assert locks("deadlock")[VIOLATIONS] == 1


def test_others_are_not_the_target(locks, lock_order):
    """A process with two orders, while another one, that sleeps, is the target."""
    with subprocess.Popen([lock_order(), "ab"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        found = locks("ab", "ba", target=Target(kind="pid", pid=other.pid))
        assert (found[VIOLATIONS], found["pthread_mutex_locks"]) == (0, 0)
        other.communicate(b"\n")


def test_the_whole_machine(locks):
    """Two processes that do the same are two violations, for the addresses of each are its own."""
    found = locks("ab", "ba", target=Target())

    assert found[VIOLATIONS] >= 1
    assert {"take", "in_order"} <= {
        name for c in found["lock_order_cycles"] for e in c["edges"] for name in functions(e["stack"])
    }


def test_a_child_that_began_after_the_run(collector, lock_order, run):
    """The probes are in the library, whichever process maps it."""
    command = [str(lock_order()), "ab", "ba"]
    code = f"import subprocess; print(flush=True); input(); subprocess.run({command}, input=b'-', stdout=-3)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        parent.stdout.readline()
        collector.start(RunRequest(target=Target(kind="pid", pid=parent.pid), selection=SELECTION))
        parent.communicate(b"\n")
        collector.stop()
    found = collector.evidence(run).as_json()["locks"]

    assert found[VIOLATIONS] == 1
    (cycle,) = found["lock_order_cycles"]
    assert cycle["pid"] != parent.pid
    for edge in cycle["edges"]:  # it has ended, and what it had mapped is known all the same
        assert functions(edge["stack"])[:2] == ["take", "in_order"]


def test_a_static_program(locks, lock_order):
    """Its C library is in itself."""
    found = locks("ab", "ba", program=lock_order("-static"))

    assert found[VIOLATIONS] == 1
    assert found["sources"][VIOLATIONS].startswith("uprobe:pthread_mutex_lock/")


def test_a_target_without_a_c_library(locks, tmp_path, lock_order):
    """Absent with the reason, and there again in the next run."""
    code = tmp_path / "bare.c"
    code.write_text(
        "static long call(long n, long a, const void *b, long c) { long r; "
        'asm volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory"); return r; }\n'
        'void _start(void) { char c; call(1, 1, "\\n", 1); call(0, 0, &c, 1); call(60, 0, 0, 0); }\n'
    )
    subprocess.run([require("cc"), "-O1", "-nostdlib", "-static", code, "-o", tmp_path / "bare"], check=True)
    found = locks(program=tmp_path / "bare")

    assert VIOLATIONS not in found
    assert VIOLATIONS not in found["sources"]
    assert found["unavailable"][VIOLATIONS].startswith("no C library that the target had mapped when the run began has")
    assert locks("ab", "ba", program=lock_order())[VIOLATIONS] == 1


def test_only_where_it_was_asked_for(collector, run, lock_order):
    """A run that does not name it has no uprobes, and says why it has no order."""
    collector.start(RunRequest(selection=Selection(("locks",))))
    subprocess.run([lock_order(), "ab", "ba"], input=b"-", check=True, stdout=subprocess.DEVNULL)
    collector.stop()
    evidence = collector.evidence(run).as_json()

    assert not {program["hook"] for program in evidence["cost"]["programs"] if program["source"].startswith("u")}
    assert OPTION in evidence["locks"]["unavailable"][VIOLATIONS]


@pytest.fixture
def absent(collector):
    """Whether this kernel cannot tell of its own mutexes: where there is neither fentry nor a kprobe."""
    (status,) = (module for module in collector.status().modules if module.name == "locks")
    lacking = "kernel_mutex_locks" in status.unavailable
    assert not (lacking and Path("/sys/bus/event_source/devices/kprobe").exists())
    return lacking


def test_mutexes_of_the_kernel(locks, absent):
    """1,009 more, for as many more calls that take one, and no violation; or no number, and the reason."""
    few, many = locks("seek1"), locks("seek1010")
    if absent:
        assert "kernel_mutex_locks" not in many
        assert many["unavailable"]["kernel_lock_order_violations"]
        return
    assert many["kernel_mutex_locks"] - few["kernel_mutex_locks"] == 1009
    assert (many["kernel_lock_order_violations"], many["kernel_lock_order_cycles"]) == (0, [])


def test_the_kernel_nests_its_mutexes(collector, targeted, absent):
    """Who reads a seq_file through a descriptor that others have as well holds the file's mutex, and wants another."""
    if absent:
        return
    code = "import os\nfd = os.open('/proc/self/maps', 0)\npid = os.fork()\nos.read(fd, 4096)\nif pid: os.wait()"
    targeted(code).run(selection=SELECTION)
    edges = edges_of(collector._last.modules["locks"]["edges"])

    assert [edge for edge in edges if edge.of_kernel]
    assert violations(edges) == []
