"""The reasons of blocked time: what each wait was, and how its time is split among the kernel's functions.  Pure.

The time of a wait key (probes/offcpu.h: system call, kind of file, state) is exact.  Where such waits happened in
several functions, their stacks show which (probes/offcpu.c).  For a function f,

    exact(f)     is the time of the waits that were as long as the threshold T or longer: each was walked
    weight(f)    = sum of T over the shorter waits that were walked, each with the probability D / T of its length D

The rest of the key's time, R = all - sum of exact, belongs to shorter waits, and is split in proportion to the weights:

    time(f) = exact(f) + R * weight(f) / W,  with W = sum of the weights

Its standard error is that of the second term, by the delta method from the variances sum of (1 - D/T) T^2.  A function
that no walk has met may be hidden in the rest: its weight is taken to be 0, with the variance of one walk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from math import sqrt
from typing import Any

from chainbench_agent.catalog import Frames, Names, Sampled, Waits
from chainbench_agent.probes.wait_categories import name_wait
from chainbench_agent.probes.wait_key import Wait

TOP = 20
"""How many reasons are shown."""

UNPROVEN = ("other", "blocked")
"""The name of a wait without a stack where the registers, which have the system call, could not be found."""


@dataclass(slots=True)
class Part:
    """A part of a wait's time that has one name."""

    category: str
    reason: str
    syscall: str = ""
    file: str = ""
    ns: float = 0
    observed_ns: float = 0
    """The part of it that passed in waits whose stack was walked."""
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
        """The part as the evidence has it."""
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
    """A part whose time is exact without any stack."""
    return Part(category, reason, ns=ns, observed_ns=ns)


def split(
    key: int, ns: int, own: Mapping[Frames, Sampled], names: Names, of_target: Mapping[Frames, Sampled] | None = None
) -> list[Part]:
    """The time of a wait by its names.

    `of_target`: what was sampled of the whole target, for the time of a thread that its `own` stacks do not cover.
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
    if not shares and rest_ns:  # waits too short for any of them to have been walked
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
    """The category and the reason of a wait with this stack."""
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


def merged(parts: Iterable[Part]) -> list[Part]:
    """Longest first; parts of one name are added up."""
    found: dict[tuple[str, str, str, str], Part] = {}
    for part in parts:
        if part.name in found:
            found[part.name].add(part)
        else:
            found[part.name] = Part(*astuple(part))
    return sorted(found.values(), key=lambda part: -part.ns)


def top_reasons(waits: Waits, others: Iterable[Part], names: Names) -> list[dict[str, Any]]:
    """The longest reasons of all off-CPU time: what threads were blocked in, and `others`, which need no stack."""
    blocked = (part for wait, ns in waits.ns.items() for part in split(wait, ns, waits.stacks.get(wait, {}), names))
    shown = [part for part in merged([*blocked, *others]) if part.ns][:TOP]
    return [part.rendered() | {"ms": round(part.ns / 1e6, 3)} for part in shown]
