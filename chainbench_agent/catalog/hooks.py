"""Where something happens in the kernel, and what feeds a hook there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["raw_tracepoint", "tp_btf", "fentry", "fexit", "kprobe", "kretprobe", "uprobe", "uretprobe", "perf"]

RESULT = -1
"""The position of what a function returns, in `kretprobe` and `uretprobe`."""

ANY_OF = "/"
"""Between the functions of a `uprobe`."""


@dataclass(frozen=True, slots=True)
class Source:
    """A place in the kernel that can feed a hook.

    `args` says where each of the hook's parameters comes from: a position among the place's own arguments (in `fexit`
    the return value comes after them, in `kretprobe` it is RESULT), or a C expression over the parameters before it.
    Empty: same position, same type.  `perf` is a counter that overflows at each event, by perf's own name for it
    (bpf/perf_events.py); it has no arguments.

    A `tp_btf` is a raw tracepoint of which the verifier knows the types of the arguments: helpers that take a task can
    be called with them (`typed` of struct cb_event).

    A kprobe at the function's entry saves what a `kretprobe` needs besides the result (probes/returns.h).  A call that
    was under way when the two were attached is not seen to return.

    A `uprobe` or `uretprobe` is in user space: at the functions of these names, "lock/timedlock", that the programs and
    libraries of the run's target define (symbols/libc_functions.py).  The latter has only the result.

    `own` are the place's first arguments, with the types that they must have: for expressions to use.
    """

    kind: Kind
    target: str
    args: tuple[int | str, ...] = ()
    own: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}:{self.target}"


def raw_tracepoint(target: str, *args: int | str, own: tuple[str, ...] = ()) -> Source:
    return Source("raw_tracepoint", target, args, own)


def tp_btf(target: str, *args: int | str, own: tuple[str, ...] = ()) -> Source:
    return Source("tp_btf", target, args, own)


def fentry(target: str, *args: int | str, own: tuple[str, ...] = ()) -> Source:
    return Source("fentry", target, args, own)


def fexit(target: str, *args: int | str, own: tuple[str, ...] = ()) -> Source:
    return Source("fexit", target, args, own)


def kprobe(target: str, *args: int | str, own: tuple[str, ...] = ()) -> Source:
    return Source("kprobe", target, args, own)


def kretprobe(target: str, *args: int | str, own: tuple[str, ...] = ()) -> Source:
    return Source("kretprobe", target, args, own)


def uprobe(functions: str, *args: int | str) -> Source:
    return Source("uprobe", functions, args)


def uretprobe(functions: str) -> Source:
    return Source("uretprobe", functions, (RESULT,))


def perf(target: str, *args: int | str) -> Source:
    return Source("perf", target, args)


@dataclass(frozen=True, slots=True)
class Hook:
    """Something that happens in the kernel, with its typed parameters and its sources, best first.

    A hook without sources is raised by a state machine (probes/sched.h, block.h): then `raised_on` names the hooks
    it needs; those that are `targeted` it can do without when there is no target.
    """

    name: str
    params: tuple[str, ...]
    sources: tuple[Source, ...] = ()
    raised_on: tuple[str, ...] = ()
    targeted: bool = False
    """True: it only says to whom something belongs, so a run of the whole machine does not need it."""
    stands_in_for: tuple[str, ...] = ()
    """Only attached where this kernel lacks one of these; what is raised on both is raised on the one or the other."""
    timed: bool = True
    """False: no handler looks at `now_ns`, so reading the clock is spared."""
    option: str = ""
    """`module:option`: only loaded, and only attached, where that was asked for (selection.py)."""
    optional: bool = False
    """True: a kernel that has none of the sources misses nothing, because another hook sees the same there."""
    unless: Source | None = None
    """A place that only some kernels have: where it is, these events come by another hook, and this one is not used."""
