"""The reasons of blocked time: what each wait was, and how its time is split among the kernel's functions.  Pure.

The time of a wait key (probes/offcpu.h: system call, kind of file, state) is exact.  Where such waits happened in
several functions, their stacks tell (probes/offcpu.c).  Of a function f,

    exact(f)     is the time of the waits that were as long as the threshold T or longer: each was walked
    weight(f)    = sum of T over the shorter waits that were walked, each with the probability D / T of its length D

The rest of the key's time, R = all - sum of exact, belongs to shorter waits, and is split in proportion to the weights:

    time(f) = exact(f) + R * weight(f) / W,  with W = sum of the weights

Its standard error is that of the second term, by the delta method from the variances sum of (1 - D/T) T^2.  A function
that no walk has met may be hidden in the rest: its weight is taken to be 0, with the variance of one walk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from math import sqrt
from struct import Struct
from typing import Any

from chainbench_agent.abi.c_struct import CStruct
from chainbench_agent.catalog import Names
from chainbench_agent.probes.wait_categories import name_wait
from chainbench_agent.probes.wait_key import Wait
from chainbench_agent.probes.offcpu import TOP

_STACK = CStruct(wait="I", pad="4x", stack="Q")  # struct offcpu_stack of probes/offcpu.c
_THREAD = CStruct(begin_ns="Q", tid="I", wait="I")  # struct offcpu_thread
_THREAD_STACK = CStruct(begin_ns="Q", tid="I", wait="I", stack="Q")  # struct offcpu_thread_stack
_SAMPLED = Struct("=QQQQQ")  # struct offcpu_sampled

UNPROVEN = ("other", "blocked")
"""The name of a wait without a stack where the registers, which have the system call, could not be found."""


@dataclass(slots=True)
class Sampled:
    """Blocked time of one wait in one function: see the top of this file."""

    exact_ns: int = 0
    observed_ns: int = 0
    weight_ns: int = 0
    walks: int = 0
    variance_us2: int = 0

    def add(self, other: Sampled) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


Frames = tuple[str, ...]
Stacks = dict[int, dict[Frames, Sampled]]
"""Wait key → functions, innermost first → what was sampled there."""


@dataclass(slots=True)
class Part:
    """A part of a wait's time that has one name."""

    category: str
    reason: str
    syscall: str = ""
    file: str = ""
    ns: float = 0
    observed_ns: float = 0
    """Of that, what passed in waits whose stack was walked."""
    variance_ns2: float = 0
    of_target: bool = False
    """It was split as the whole target's time is, because none of the thread's own stacks is known."""

    @property
    def name(self) -> tuple[str, str, str, str]:
        return self.category, self.reason, self.syscall, self.file

    def add(self, other: Part) -> None:
        self.ns += other.ns
        self.observed_ns += other.observed_ns
        self.variance_ns2 += other.variance_ns2
        self.of_target |= other.of_target

    def rendered(self) -> dict[str, Any]:
        """As it stands in the evidence."""
        percent = 100 * min(self.observed_ns / self.ns, 1) if self.ns else 100.0
        found: dict[str, Any] = {"reason": self.reason, "syscall": self.syscall}
        if self.file:
            found["file"] = self.file
        found |= {"ms": round(self.ns / 1e6, 6), "sampled_percent": round(percent, 1)}
        if percent or self.variance_ns2:
            found["standard_error_ms"] = round(sqrt(self.variance_ns2) / 1e6, 3)
        if self.of_target:
            found["split_of"] = "target"
        return found


def exact_part(category: str, reason: str, ns: float) -> Part:
    """Time that no stack is needed for."""
    return Part(category, reason, ns=ns, observed_ns=ns)


def blocked_ns(offcpu: Mapping[str, Any]) -> dict[int, int]:
    """Wait key → ns, of the whole target; with what was open at the end (open_intervals.py)."""
    found: dict[int, int] = defaultdict(int)
    for key, value in offcpu["blocked_ns"].items():
        found[int.from_bytes(key, "little")] += int.from_bytes(value, "little")
    for (wait, _), ns in offcpu.get("open_waits", {}).items():
        found[wait] += ns
    return found


def stacks(offcpu: Mapping[str, Any], names: Names) -> Stacks:
    """What was sampled of the whole target."""
    found: Stacks = defaultdict(lambda: defaultdict(Sampled))
    for key, value in offcpu["sampled_ns"].items():
        wait, stack = _STACK.unpack(key)
        found[wait][names.stacks.get(stack, ())].add(Sampled(*_SAMPLED.unpack(value)))
    for (wait, frames), ns in offcpu.get("open_waits", {}).items():
        found[wait][frames].add(Sampled(exact_ns=ns))
    return found


def blocked_ns_of_threads(offcpu: Mapping[str, Any]) -> dict[tuple[int, int], dict[int, int]]:
    """Thread (tid, begin_ns) → wait key → ns; without what was open at the end."""
    found: dict[tuple[int, int], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for key, value in offcpu["by_thread_ns"].items():
        begin_ns, tid, wait = _THREAD.unpack(key)
        found[tid, begin_ns][wait] += int.from_bytes(value, "little")
    return found


def stacks_of_threads(offcpu: Mapping[str, Any], names: Names) -> dict[tuple[int, int], Stacks]:
    """Thread (tid, begin_ns) → what was sampled of it; without what was open at the end."""
    found: dict[tuple[int, int], Stacks] = defaultdict(lambda: defaultdict(lambda: defaultdict(Sampled)))
    for key, value in offcpu["sampled_by_thread"].items():
        begin_ns, tid, wait, stack = _THREAD_STACK.unpack(key)
        found[tid, begin_ns][wait][names.stacks.get(stack, ())].add(Sampled(*_SAMPLED.unpack(value)))
    return found


def split(
    key: int, ns: int, own: Mapping[Frames, Sampled], names: Names, of_target: Mapping[Frames, Sampled] | None = None
) -> list[Part]:
    """The time of a wait by its names.

    `of_target`: what was sampled of the whole target, for the time of a thread that its `own` stacks do not tell.
    """
    wait = Wait.of(key)
    samples = _by_name(wait, own, names)
    exact_ns = sum(sampled.exact_ns for sampled in samples.values())
    scale = min(ns / exact_ns, 1) if exact_ns else 1  # less than 1: the account of a thread that lost some of its time
    rest_ns = max(ns - exact_ns, 0)
    weights = {name: sampled for name, sampled in samples.items() if sampled.weight_ns}
    borrowed = not weights and rest_ns > 0 and bool(of_target)
    if borrowed:
        weights = {name: sampled for name, sampled in _by_name(wait, of_target, names).items() if sampled.weight_ns}
    shares = {name: (share, variance) for name, share, variance in _shares(rest_ns, weights)}
    if not shares and rest_ns:  # too short to have been met
        shares = {_name((), wait, names): (float(rest_ns), 0.0)}
    called, file = ("", "") if names.no_calls else (wait.syscall(names), wait.file)
    parts = []
    for name in samples | shares:
        sampled, (share, variance) = samples.get(name, Sampled()), shares.get(name, (0.0, 0.0))
        part_ns = sampled.exact_ns * scale + share
        observed_ns = min(sampled.exact_ns + sampled.observed_ns, part_ns)
        parts.append(Part(*name, called, file, part_ns, observed_ns, variance, of_target=borrowed and share > 0))
    return [part for part in parts if part.ns]


def _name(frames: Frames, wait: Wait, names: Names) -> tuple[str, str]:
    """Category and reason."""
    if names.no_calls:
        return name_wait(frames, "", Wait()) if frames else UNPROVEN
    return name_wait(frames, wait.syscall(names), wait)


def _by_name(wait: Wait, stacks_: Mapping[Frames, Sampled] | None, names: Names) -> dict[tuple[str, str], Sampled]:
    found: dict[tuple[str, str], Sampled] = defaultdict(Sampled)
    for frames, sampled in (stacks_ or {}).items():
        found[_name(frames, wait, names)].add(sampled)
    return dict(found)


def _shares(rest_ns: int, weighed: Mapping[tuple[str, str], Sampled]) -> Iterator[tuple[tuple[str, str], float, float]]:
    """Each name's share of the time of the short waits, with its variance in ns^2."""
    whole = sum(sampled.weight_ns for sampled in weighed.values())
    walks = sum(sampled.walks for sampled in weighed.values())
    unmet = (whole / walks) ** 2 if walks else 0.0
    variances = {name: 1e6 * sampled.variance_us2 for name, sampled in weighed.items()}
    for name, sampled in weighed.items():
        mine, others = sampled.weight_ns, whole - sampled.weight_ns
        spread = others**2 * variances[name] + mine**2 * (sum(variances.values()) - variances[name] + unmet)
        yield name, rest_ns * mine / whole, rest_ns**2 * spread / whole**4


def merged(parts: Iterator[Part] | list[Part]) -> list[Part]:
    """Longest first; parts of one name are added up."""
    found: dict[tuple[str, str, str, str], Part] = {}
    for part in parts:
        if part.name in found:
            found[part.name].add(part)
        else:
            found[part.name] = Part(*astuple(part))
    return sorted(found.values(), key=lambda part: -part.ns)


def top_reasons(offcpu: Mapping[str, Any], names: Names) -> list[dict[str, Any]]:
    """The evidence's `offcpu.top_reasons`: the longest reasons of all off-CPU time."""
    sampled = stacks(offcpu, names)
    parts = [part for wait, ns in blocked_ns(offcpu).items() for part in split(wait, ns, sampled.get(wait, {}), names)]
    parts += [
        exact_part("runnable", "run queue (woken)", offcpu["woken_wait_ns"]),
        exact_part("runnable", "run queue (preempted)", offcpu["preempted_wait_ns"]),
        exact_part("throttled", "throttled", offcpu["throttled_wait_ns"]),
    ]
    shown = [part for part in merged(parts) if part.ns][:TOP]
    return [part.rendered() | {"ms": round(part.ns / 1e6, 3)} for part in shown]
