"""Decodes the maps of blocked time: by wait, by stack, of a target's threads.  Kernel side: offcpu.c"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from struct import Struct
from typing import Any

from chainbench_agent.abi.c_struct import CStruct
from chainbench_agent.catalog import BlockedTime, CallStack, Names, Sampled, Waits, WaitStacks, no_stacks

STACKS = "offcpu_stacks"

_STACK = CStruct(wait="I", pad="4x", stack="Q")  # struct offcpu_stack
_THREAD = CStruct(begin_ns="Q", tid="I", wait="I")  # struct offcpu_thread
_THREAD_STACK = CStruct(begin_ns="Q", tid="I", wait="I", stack="Q")  # struct offcpu_thread_stack
_SAMPLED = Struct("=QQQQQ")  # struct offcpu_sampled


def blocked_time(counts: Mapping[str, Any], names: Names) -> BlockedTime:
    """The blocked time of the target and of its threads, as the ledger requires it."""
    threads: dict[tuple[int, int], Waits] = defaultdict(Waits)
    for thread, ns in blocked_ns_of_threads(counts).items():
        threads[thread].ns = ns
    for thread, found in stacks_of_threads(counts, names).items():
        threads[thread].stacks = found
    return BlockedTime(Waits(blocked_ns(counts), stacks(counts, names)), dict(threads))


def blocked_ns(counts: Mapping[str, Any]) -> dict[int, int]:
    """Wait key → ns, of the whole target; with what was open at the end."""
    found: dict[int, int] = defaultdict(int)
    for key, value in counts["blocked_ns"].items():
        found[int.from_bytes(key, "little")] += int.from_bytes(value, "little")
    for (wait, _), ns in counts.get("open_waits", {}).items():
        found[wait] += ns
    return found


def stacks(counts: Mapping[str, Any], names: Names) -> WaitStacks:
    """The samples of the whole target; with what was open at the end."""
    found = no_stacks()
    for key, value in counts["sampled_ns"].items():
        wait, stack = _STACK.unpack(key)
        found[wait][names.frames(STACKS, CallStack(stack))].add(Sampled(*_SAMPLED.unpack(value)))
    for (wait, frames), ns in counts.get("open_waits", {}).items():
        found[wait][frames].add(Sampled(exact_ns=ns))
    return found


def blocked_ns_of_threads(counts: Mapping[str, Any]) -> dict[tuple[int, int], dict[int, int]]:
    """Thread (tid, begin_ns) → wait key → ns; without what was open at the end."""
    found: dict[tuple[int, int], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for key, value in counts["by_thread_ns"].items():
        begin_ns, tid, wait = _THREAD.unpack(key)
        found[tid, begin_ns][wait] += int.from_bytes(value, "little")
    return found


def stacks_of_threads(counts: Mapping[str, Any], names: Names) -> dict[tuple[int, int], WaitStacks]:
    """Thread (tid, begin_ns) → what was sampled of it; without what was open at the end."""
    found: dict[tuple[int, int], WaitStacks] = defaultdict(no_stacks)
    for key, value in counts["sampled_by_thread"].items():
        begin_ns, tid, wait, stack = _THREAD_STACK.unpack(key)
        found[tid, begin_ns][wait][names.frames(STACKS, CallStack(stack))].add(Sampled(*_SAMPLED.unpack(value)))
    return found
