"""What a thread blocks in, and when its stack is taken (probes/offcpu.c)."""

import ctypes

import pytest
from user_space import FUTEX, INTERRUPTIBLE, NO_SYSCALL, READ, UNINTERRUPTIBLE, blocked

from chainbench_agent.probes.offcpu import UNINTERRUPTIBLE as NO_SIGNAL


@pytest.mark.parametrize(
    ("syscall", "state", "wait"),
    [
        (READ, INTERRUPTIBLE, READ),
        (READ, UNINTERRUPTIBLE, READ | NO_SIGNAL),
        (NO_SYSCALL, UNINTERRUPTIBLE, 511 | NO_SIGNAL),
        (512, INTERRUPTIBLE, 511),
    ],
    ids=["signal may end it", "no signal", "page fault", "number beyond the table"],
)
def test_what_it_waits_in(kernel, syscall, state, wait):
    """The system call from the saved registers, and whether a signal could have ended it."""
    task = kernel.task(10, syscall=syscall)
    kernel.at(1000).begin().switch(kernel.idle, task)

    kernel.switch(task, kernel.idle, state)
    kernel.at(1005).wake(task)

    assert blocked(kernel.counted()["offcpu"]) == {wait: 5}


def test_stacks_are_taken_now_and_then(kernel, thread):
    """The first 16 blocks of a kind in a run, then one in 64; in the next run again."""

    def block(times):
        before = kernel.get("shim_stack_walks")
        for _ in range(times):
            kernel.switch(thread, kernel.idle, INTERRUPTIBLE)
            kernel.wake(thread)
            kernel.switch(kernel.idle, thread)
        return kernel.get("shim_stack_walks") - before

    assert [block(16), block(48), block(1), block(63), block(1)] == [16, 0, 1, 0, 1]
    kernel.end().begin().switch(kernel.idle, thread)
    assert block(17) == 16


def test_sampled_time_goes_to_its_stack(kernel, thread):
    """By wait and stack, beside the exact time.  Where another stack has its place, it is looked for once more, with a
    frame less; if that fails too, there is only the exact one.
    """
    kernel.set("shim_stack_id", ctypes.c_int32, 7)
    kernel.at(1100).switch(thread, kernel.idle, INTERRUPTIBLE)
    kernel.at(1400).wake(thread)
    kernel.switch(kernel.idle, thread)
    kernel.set("shim_stack_id", ctypes.c_int32, -17)  # EEXIST: the place is taken
    kernel.switch(thread, kernel.idle, INTERRUPTIBLE)
    kernel.at(1450).wake(thread)
    kernel.switch(kernel.idle, thread)
    kernel.set("shim_shorter_stack_id", ctypes.c_int32, 11)
    kernel.switch(thread, kernel.idle, INTERRUPTIBLE)
    kernel.at(1467).wake(thread)

    offcpu = kernel.counted()["offcpu"]
    sampled = {(key[:4], key[4:]): int.from_bytes(ns, "little") for key, ns in offcpu["sampled_ns"].items()}
    assert sampled == {
        (FUTEX.to_bytes(4, "little"), stack.to_bytes(4, "little")): ns for stack, ns in ((7, 300), (11, 17))
    }
    assert blocked(offcpu) == {FUTEX: 367}
