"""System calls from entry to exit (probes/machines/calls.h), in the module io and open in a sample."""

import ctypes

import pytest
from user_space import AGENT, FUTEX, INTERRUPTIBLE, NO_SYSCALL, UserSpace, fused

from chainbench_agent.host.syscall_names import syscalls
from chainbench_agent.loading.unit_sizes import call_kinds, followed_calls
from chainbench_agent.probes import CALLS

READ, FSYNC, GETPPID = 0, 74, 110
READ_32BIT, FSYNC_32BIT, FUTEX_32BIT = 3, 118, 240
MMAP2_32BIT, MAP_PRIVATE, MAP_ANONYMOUS = 192, 0x2, 0x20
KIND = {name: number for number, name in enumerate(call_kinds())}


@pytest.fixture
def caller(kernel):
    """A thread that has a file open as 3; the run begins at 1000."""
    caller = kernel.task(10)
    kernel.open(caller, 3)
    kernel.at(1000).begin()
    return caller


def syncs(kernel):
    latency = kernel.counted()["io"]["fsync_latency_ns"]
    return sum(latency.slots), latency.sum


def under_way(kernel):
    (task,) = kernel.sample().tasks
    return task.call, task.call_since_ns


def test_from_entry_to_exit(kernel, caller):
    """Its time is that between the two, and it is under way meanwhile."""
    kernel.at(1100).enter(caller, FSYNC, 3)
    assert under_way(kernel) == (KIND["FSYNC"], 1100)
    kernel.at(1170).leave(caller, 0)

    assert under_way(kernel)[0] == KIND["NONE"]
    assert syncs(kernel) == (1, 70)


def test_one_after_the_other(kernel, caller):
    """Each with its own time, whatever lies between."""
    for begin, number, end in ((1100, FSYNC, 1110), (1200, GETPPID, 1900), (2000, FSYNC, 2300)):
        kernel.at(begin).enter(caller, number, 3)
        kernel.at(end).leave(caller, 0)

    assert syncs(kernel) == (2, 310)


def test_a_call_that_never_returns(kernel, caller):
    """The next entry is another call: exit_group, or a signal's handler, has no exit of its own."""
    kernel.at(1100).enter(caller, FSYNC, 3)
    kernel.at(1200).enter(caller, GETPPID)
    kernel.at(1300).leave(caller, 0)

    assert syncs(kernel) == (0, 0)


def test_an_exit_without_an_entry(kernel, caller):
    """After a signal's handler there is none to the number that stands in the registers."""
    kernel.at(1100).enter(caller, FSYNC, 3)
    kernel.at(1200).leave(caller, 0)
    kernel.at(1300).leave(caller, 0)

    assert syncs(kernel) == (1, 100)


def test_under_way_when_the_run_begins(kernel, caller):
    """Counted once, where it returns, with its part in the run; its file is found then."""
    kernel.end().enter(caller, READ, 3)
    kernel.at(5000).begin()
    kernel.at(5030).leave(caller, 100)

    io = kernel.counted()["io"]
    assert (io["file_reads"], io["file_reads_bytes"], io["read_latency_ns"].sum) == (1, 100, 30)


@pytest.mark.parametrize("number", [GETPPID, 511, 512, (1 << 32) + FSYNC, NO_SYSCALL])
def test_others_under_way_when_the_run_begins(kernel, caller, number):
    """The return of a call that no module follows is ignored, also where the registers hold no number."""
    kernel.tell("shim_set_syscall", caller, ctypes.c_uint64(number))
    kernel.at(1100).leave(caller, 0)

    assert syncs(kernel) == (0, 0)
    assert under_way(kernel)[0] == KIND["NONE"]


def test_under_way_when_the_run_ends(kernel, caller):
    """It is in the sample with its begin, and in no count."""
    kernel.at(1100).enter(caller, FUTEX)
    kernel.at(1500).end()
    kernel.leave(caller, 0)

    assert under_way(kernel) == (KIND["FUTEX_WAIT"], 1100)


def test_each_thread_has_its_own(kernel, caller):
    """Interleaved calls of two threads do not mix."""
    other = kernel.task(11, tgid=10)
    kernel.open(other, 3)
    kernel.at(1100).enter(caller, FSYNC, 3)
    kernel.at(1150).enter(other, READ, 3)
    kernel.at(1200).leave(caller, 0)
    kernel.at(1350).leave(other, 7)

    assert syncs(kernel) == (1, 100)
    assert kernel.counted()["io"]["read_latency_ns"].sum == 200


def test_32_bit_calls(compile_unit):
    """They have other numbers, and other registers for their arguments."""
    text = "#define CONFIG_X86_64 1\n#define CONFIG_IA32_EMULATION 1\n" + fused().text
    kernel = UserSpace(ctypes.CDLL(str(compile_unit(text, "calls_32bit"))))
    caller = kernel.task(10)
    kernel.open(caller, 3)
    kernel.open(caller, 4, mode="pipe")
    kernel.at(1000).begin()
    for fd, number in ((3, READ_32BIT), (4, READ_32BIT), (3, FSYNC_32BIT)):
        kernel.at(kernel.now_ns + 100).enter(caller, number, fd, compat=True)
        kernel.at(kernel.now_ns + 10).leave(caller, 0)
    kernel.enter(caller, FSYNC_32BIT, 3)  # another call, for a 64-bit program
    kernel.leave(caller, 0)

    assert syncs(kernel) == (1, 10)
    assert kernel.counted()["io"]["file_reads"] == 1
    for flags in (MAP_PRIVATE, MAP_PRIVATE | MAP_ANONYMOUS):
        kernel.enter(caller, MMAP2_32BIT, 0, 4096, 1, flags, compat=True)
        kernel.leave(caller, 0x1000)
    assert sum(kernel.counted()["io"]["other_file_calls"]) == 1
    kernel.enter(caller, FUTEX_32BIT, compat=True)
    assert under_way(kernel)[0] == KIND["FUTEX_WAIT"]


def test_neither_the_agent_nor_others_are_followed(kernel):
    """Only the call of the target's thread is counted."""
    member, other, agent = kernel.task(10), kernel.task(20), kernel.task(AGENT + 50, tgid=AGENT)
    kernel.at(1000).tree(10, AGENT).begin()
    for task in (member, other, agent):
        kernel.at(1100).enter(task, FSYNC, 3)
        kernel.at(1110).leave(task, 0)

    assert syncs(kernel) == (1, 10)


def test_a_thread_that_left_and_returned_within_its_calls(kernel):
    """The call under way when it left the cgroup is not continued when it is in it again."""
    task = kernel.task(10)
    kernel.move(task, 5)
    kernel.at(1000).cgroup(5, level=1).begin()
    kernel.at(1100).enter(task, FSYNC, 3)
    kernel.move(task, 6)
    kernel.at(1200).leave(task, 0)
    kernel.at(8000).switch(task, kernel.idle, INTERRUPTIBLE)
    kernel.at(8100).enter(task, GETPPID)
    kernel.move(task, 5)
    kernel.at(8200).leave(task, 0)

    assert syncs(kernel) == (0, 0)


def test_the_numbers_of_every_call():
    """Each name in CALLS is found in a table, with its kind; no other number is followed."""
    names = {name: KIND[kind] for kind, group in CALLS.items() for name in group}
    followed = {number: kinds for number, *kinds in followed_calls("x86_64")}

    for table, width in (("x86_64", 0), ("i386", 1)):
        present = syscalls(table)
        found = {name: followed[number][width] for number, name in present.items() if name in names}
        assert found == {name: kind for name, kind in names.items() if name in present.values()}
        assert len(found) == sum(kinds[width] != KIND["NONE"] for kinds in followed.values())
    assert (followed[READ], followed[READ_32BIT]) == ([KIND["READ"], KIND["RESTART"]], [KIND["CLOSE"], KIND["READ"]])
    assert GETPPID not in followed


# ---- waits that a stop interrupts

RESTART, SIGRETURN = 219, 15
WAIT, WAIT_BITSET = 0, 9
RESTARTSYS, RESTART_BLOCK = -512, -516


def waits(kernel, *, closed=False):
    """How often a futex was waited for, and how long: of all, and by single waits."""
    locks = kernel.counted(closed=closed)["locks"]
    assert sum(locks["futex_wait_ns"].slots) == locks["futex_waits"]
    assert locks["futex_wait_ns"].sum == locks["futex_waited_ns"]
    return locks["futex_waits"], locks["futex_waited_ns"]


@pytest.mark.parametrize(
    ("answer", "number"), [(RESTART_BLOCK, RESTART), (RESTARTSYS, FUTEX)], ids=["with a timeout", "without one"]
)
@pytest.mark.parametrize("stops", [1, 2])
def test_a_wait_goes_on_after_a_stop(kernel, caller, answer, number, stops):
    """It is one wait, from the first call to the last return, stops included."""
    kernel.at(1100).enter(caller, FUTEX, 0, WAIT)
    for _ in range(stops):
        kernel.at(kernel.now_ns + 300).leave(caller, answer)
        assert waits(kernel) == (0, 0)
        kernel.at(kernel.now_ns + 50).enter(caller, number, 0, WAIT)
    kernel.at(kernel.now_ns + 1000).leave(caller, -110)

    assert waits(kernel) == (1, stops * 350 + 1000)
    kernel.at(9000).enter(caller, FUTEX, 0, WAIT)
    kernel.at(9007).leave(caller, 0)
    assert waits(kernel) == (2, stops * 350 + 1000 + 7)


def test_a_wait_that_a_handler_ends(kernel, caller):
    """Its wait ended when the signal came, as the handler's return shows."""
    kernel.at(1100).enter(caller, FUTEX, 0, WAIT_BITSET)
    kernel.at(1400).leave(caller, RESTART_BLOCK)
    kernel.at(1900).enter(caller, SIGRETURN)

    assert waits(kernel) == (1, 300)
    kernel.at(2000).enter(caller, FUTEX, 0, WAIT)
    kernel.at(2005).leave(caller, 0)
    assert waits(kernel) == (2, 305)


def test_a_wait_in_which_a_thread_is_killed(kernel, caller):
    """The call never returns for good, and counts as a wait."""
    kernel.at(1100).enter(caller, FUTEX, 0, WAIT)
    kernel.at(1400).leave(caller, RESTARTSYS)
    kernel.at(1450).exit(caller)

    assert waits(kernel) == waits(kernel, closed=True) == (1, 300)


def test_a_wait_that_is_stopped_when_the_run_ends(kernel, caller):
    """To who waits it goes on."""
    kernel.at(1100).enter(caller, FUTEX, 0, WAIT)
    kernel.at(1400).leave(caller, RESTART_BLOCK)
    kernel.at(2000).end()

    assert waits(kernel, closed=True) == (1, 900)


def test_a_restarted_call_that_nobody_followed(kernel, caller):
    """It is not counted: which call is restarted is not known, and it may be a sleep."""
    kernel.at(1050).leave(caller, 0)
    kernel.at(1100).enter(caller, RESTART)
    kernel.at(1400).leave(caller, 0)

    assert waits(kernel, closed=True) == (0, 0)
    assert under_way(kernel)[0] == KIND["NONE"]


def test_more_interrupted_waits_than_are_remembered(kernel, caller):
    """Such a wait ends where it was interrupted; the loss is counted."""
    entries = kernel.get("cb_interrupted_entries")
    ctypes.memset((ctypes.c_uint8 * entries).in_dll(kernel.library, "cb_interrupted_used"), 1, entries)
    kernel.at(1100).enter(caller, FUTEX, 0, WAIT)
    kernel.at(1400).leave(caller, RESTARTSYS)

    assert waits(kernel) == (1, 300)
    assert kernel.lost() == {"keys_full": 1}
