"""Runs functions in forked children and returns their results, so that the memory they take is freed.

Python and the C library seldom return memory to the kernel.  A forked child has all modules loaded already, and starts
in a millisecond.
"""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

from chainbench_agent.errors import SetupError

Answer = TypeVar("Answer")
Own = TypeVar("Own")


def run_in_child(work: Callable[[], Answer]) -> Answer:
    """The result of `work`, which pickle must be able to carry; its exception is raised here.

    Raises SetupError if the child dies.
    """
    return _begin(work).answer()


def run_in_parallel(
    work: Callable[[], Answer], meanwhile: Callable[[], Own], *, undo: Callable[[Own], object] = lambda _own: None
) -> tuple[Answer, Own]:
    """The results of `work`, run in a child, and of `meanwhile`, run here; an error of the latter is raised first.

    If `work` fails, `undo` is called with the result of `meanwhile`.
    """
    begun = _begin(work)
    try:
        own = meanwhile()
    except BaseException:
        with suppress(Exception):
            begun.answer()
        raise
    try:
        return begun.answer(), own
    except BaseException:
        undo(own)
        raise


def _begin(work: Callable[[], Answer]) -> _Begun[Answer]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)  # or, if the parent is killed, its write would wait forever for itself to read
        _answer(work, writing)
    os.close(writing)
    return _Begun(child, reading)


@dataclass(frozen=True, slots=True)
class _Begun(Generic[Answer]):
    """A running child, and the pipe of its answer."""

    child: int
    reading: int

    def answer(self) -> Answer:
        with os.fdopen(self.reading, "rb") as pipe:
            data = pipe.read()
        _, status = os.waitpid(self.child, 0)
        if not data:
            raise SetupError(f"a helper process of the agent died (wait status {status})")
        answered, found = pickle.loads(data)  # noqa: S301 - from our own child
        if not answered:
            raise found
        return found  # type: ignore[no-any-return]


def _answer(work: Callable[[], object], writing: int) -> NoReturn:
    """In the child: sends the answer and ends at once, without the exit handlers of the parent."""
    try:
        gc.disable()
        try:
            answer: tuple[bool, object] = True, work()
        except Exception as error:  # noqa: BLE001 - the parent raises it
            answer = False, error
        data = pickle.dumps(answer)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)
    finally:
        os._exit(0)
