"""Functions that run in a child process: only the result or the error reaches the caller."""

import os
import select
import signal
from pathlib import Path

import pytest

from chainbench_agent.errors import LayoutError, SetupError
from chainbench_agent.loading.child_process import run_in_child, run_in_parallel


def descriptors():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_the_result_is_returned():
    """A result is returned whole, however large it is."""
    assert run_in_child(lambda: {"text": "x" * 1_000_003, "numbers": (2, 3)}) == {
        "text": "x" * 1_000_003,
        "numbers": (2, 3),
    }


def test_it_is_done_in_another_process():
    """Changes that the function makes are not made in the caller's process."""
    changed = []

    pid = run_in_child(lambda: changed.append("in the child") or os.getpid())

    assert pid != os.getpid()
    assert changed == []


def test_its_error_is_raised_here():
    """With its class and its sentence."""

    def fail():
        raise LayoutError("a member lies elsewhere")

    with pytest.raises(LayoutError, match="a member lies elsewhere"):
        run_in_child(fail)


def test_a_child_that_dies_is_a_reason():
    """No descriptor and no zombie is left of it."""
    before = descriptors()

    with pytest.raises(SetupError, match="died"):
        run_in_child(lambda: os.kill(os.getpid(), 9))

    assert descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_child_whose_parent_is_killed_ends():
    """Its result is larger than a pipe, and is not read any more: it must not wait for ever to write it."""
    begins, begun = os.pipe()
    waits, go_on = os.pipe()
    parent = os.fork()
    if not parent:
        run_in_child(lambda: os.write(begun, str(os.getpid()).encode()) and os.read(waits, 1) and "x" * 1_000_003)
    child = os.pidfd_open(int(os.read(begins, 10)))
    os.kill(parent, 9)
    os.waitpid(parent, 0)
    os.write(go_on, b"x")

    ended = select.select([child], [], [], 30)[0]
    if not ended:
        signal.pidfd_send_signal(child, signal.SIGKILL)
    assert ended, "it waits for ever"
    for descriptor in (begins, begun, waits, go_on, child):
        os.close(descriptor)


def test_the_child_runs_in_parallel():
    """Both results are returned, and the child ran meanwhile: the caller's function waits for it here."""
    reading, writing = os.pipe()

    answers = run_in_parallel(lambda: os.write(writing, b"x") and os.getpid(), lambda: os.read(reading, 1))

    assert answers[0] != os.getpid()
    assert answers[1] == b"x"


def test_an_error_here_goes_first():
    """The caller's error is raised rather than the child's, and the child is waited for."""

    def fail():
        raise LayoutError("a member lies elsewhere")

    with pytest.raises(LayoutError, match="a member lies elsewhere"):
        run_in_parallel(lambda: os.kill(os.getpid(), 9), fail)

    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_what_was_done_here_for_nothing_is_undone():
    """If the child fails, the caller's result is of no use and is undone; else it is not."""
    undone = []

    with pytest.raises(SetupError, match="died"):
        run_in_parallel(lambda: os.kill(os.getpid(), 9), lambda: "a unit", undo=undone.append)
    run_in_parallel(lambda: 1, lambda: "another", undo=undone.append)

    assert undone == ["a unit"]
