"""Work whose memory must not stay: done in a child, of which only the answer comes back.

Python and the C library seldom give back what they once had.  A forked child has all that is loaded here already, and
starts in a millisecond.
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


def apart(work: Callable[[], Answer]) -> Answer:
    """What `work` answers, or raises, where pickle can carry it.  Raises SetupError if the child dies."""
    return _begin(work).answer()


def run_in_parallel(
    work: Callable[[], Answer], meanwhile: Callable[[], Own], *, undo: Callable[[Own], object] = lambda _own: None
) -> tuple[Answer, Own]:
    """The answers of `work`, done apart, and of what is done here `meanwhile`; an error of the latter goes first.

    `undo` is called with what was done here if it was for nothing, because `work` failed.
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
        os.close(reading)  # or it would wait for ever for itself to read, where the parent was killed
        _answer(work, writing)
    os.close(writing)
    return _Begun(child, reading)


@dataclass(frozen=True, slots=True)
class _Begun(Generic[Answer]):
    """A child at work, and the pipe that its answer comes through."""

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
    """In the child.  It ends at once: what the parent would do at its exit is not the child's to do."""
    try:
        gc.disable()
        try:
            answer: tuple[bool, object] = True, work()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the parent's
            answer = False, error
        data = pickle.dumps(answer)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)
    finally:
        os._exit(0)
