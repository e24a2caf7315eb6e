"""Lock-order violations of real threads: a C program takes mutexes in given orders."""

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


def test_two_orders_are_reported(locks):
    """Though the threads never met: with both mutexes, both threads, and where each took its second one."""
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
def test_only_different_orders_are_violations(locks, orders, violations):
    """One order, recursive mutexes, circles, trylocks, another mutex at the same address, a condition."""
    assert locks(*orders.split())[VIOLATIONS] == violations


def test_acquired_mutexes_are_counted(locks):
    """Two more for each of 503 threads; each also takes one of the C library when it ends."""
    few, many = locks(*["a"] * 503), locks(*["abc"] * 503)

    assert many["pthread_mutex_locks"] - few["pthread_mutex_locks"] == 2 * 503


def test_a_deadlock_is_reported_while_it_lasts(locks):
    assert locks("deadlock")[VIOLATIONS] == 1


def test_violations_of_other_processes_do_not_count(locks, lock_order):
    """The target sleeps meanwhile."""
    with subprocess.Popen([lock_order(), "ab"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        found = locks("ab", "ba", target=Target(kind="pid", pid=other.pid))
        assert (found[VIOLATIONS], found["pthread_mutex_locks"]) == (0, 0)
        other.communicate(b"\n")


def test_two_processes_have_violations_of_their_own(locks):
    """The same program twice, as each has addresses of its own."""
    found = locks("ab", "ba", target=Target())

    assert found[VIOLATIONS] >= 1
    assert {"take", "in_order"} <= {
        name for c in found["lock_order_cycles"] for e in c["edges"] for name in functions(e["stack"])
    }


def test_a_child_that_began_after_the_run_is_followed(collector, lock_order, run):
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


def test_a_static_program_is_followed(locks, lock_order):
    """Its C library is in the program itself."""
    found = locks("ab", "ba", program=lock_order("-static"))

    assert found[VIOLATIONS] == 1
    assert found["sources"][VIOLATIONS].startswith("uprobe:pthread_mutex_lock/")


def test_a_target_without_a_c_library_has_a_reason(locks, tmp_path, lock_order):
    """The next run has the figures again."""
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


def test_a_run_without_the_option_has_no_uprobes(collector, run, lock_order):
    """And has the reason for the absence of the figures."""
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


def test_mutexes_of_the_kernel_are_counted(locks, absent):
    """1,009 more for as many more calls, and no violation; or the reason why there is no number."""
    few, many = locks("seek1"), locks("seek1010")
    if absent:
        assert "kernel_mutex_locks" not in many
        assert many["unavailable"]["kernel_lock_order_violations"]
        return
    assert many["kernel_mutex_locks"] - few["kernel_mutex_locks"] == 1009
    assert (many["kernel_lock_order_violations"], many["kernel_lock_order_cycles"]) == (0, [])


def test_nested_mutexes_of_the_kernel_are_no_violation(collector, targeted, absent):
    """A thread that reads a seq_file through a shared descriptor holds the file's mutex, and takes another."""
    if absent:
        return
    code = "import os\nfd = os.open('/proc/self/maps', 0)\npid = os.fork()\nos.read(fd, 4096)\nif pid: os.wait()"
    targeted(code).run(selection=SELECTION)
    edges = edges_of(collector._last.modules["locks"]["edges"])

    assert [edge for edge in edges if edge.of_kernel]
    assert violations(edges) == []
