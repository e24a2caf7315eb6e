"""A thread that executes a program takes its leader's number: the thread continues, and the leader has ended."""

import pytest

pytestmark = pytest.mark.bpf

LEADERS = {
    "asleep": "time.sleep(60)",
    "at work": "while True: pass",
    "gone": "ctypes.CDLL(None).pthread_exit(0)",
}


def assert_every_line_adds_up(evidence):
    """All but 1 % is explained, of the whole and of each thread, unless the kernel did not show a switch."""
    ledger = evidence["ledger"]
    if "unseen_switches" in evidence["loss"]["causes"]:
        return
    for line in (ledger, *ledger["threads"]):
        assert abs(line["unexplained_ms"]) <= max(0.01 * line["wall_ms"], 0.05), line


@pytest.mark.parametrize("leader", LEADERS)
def test_the_thread_and_the_leader_have_a_line_each(targeted, leader):
    """The thread's line goes from before the exec to the end; the leader's ends where the leader ended."""
    code = f"""
import ctypes, os, threading, time
def second():
    time.sleep(0.3)
    os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(0.2)"])
threading.Thread(target=second).start()
{LEADERS[leader]}
"""
    one = targeted(code)
    evidence = one.run_seen()

    ledger = evidence["ledger"]
    assert evidence["exec"]["exec_count"] == 1
    assert evidence["target"]["threads_seen"] == len(ledger["threads"]) == 2
    assert ledger["threads_not_shown"] == 0
    lines = {line["tid"] == one.process.pid: line for line in ledger["threads"]}
    first, second = lines[True], lines[False]
    assert first["pid"] == second["pid"] == one.process.pid
    asleep = sum(category["ms"] for category in second["blocked"] if category["category"] == "sleep")
    assert asleep == pytest.approx(500, rel=0.05)
    assert second["wall_ms"] >= 500
    assert first["wall_ms"] < 0.3 * second["wall_ms"] if leader == "gone" else first["wall_ms"] >= 300
    assert_every_line_adds_up(evidence)


@pytest.mark.usefixtures("noise")
def test_23_such_programs_in_a_row_are_explained(targeted):
    """On a busy machine: 24 threads, and all of their time."""
    code = """
import os
again = '''import os, sys, threading
left = int(sys.argv[1])
def second(): os.execv(sys.executable, [sys.executable, "-c", os.environ["AGAIN"], str(left - 1)])
if left:
    threading.Thread(target=second).start()
    while True: pass
'''
os.environ["AGAIN"] = again
os.execv(sys.executable, [sys.executable, "-c", again, "23"])
"""
    evidence = targeted(code).run()

    assert evidence["exec"]["exec_count"] == 24
    assert evidence["exec"]["threads_created"] == 23
    assert evidence["target"]["threads_seen"] == 24
    ledger = evidence["ledger"]
    assert len(ledger["threads"]) + ledger["threads_not_shown"] == 24
    assert_every_line_adds_up(evidence)
