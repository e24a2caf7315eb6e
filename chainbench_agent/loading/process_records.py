"""The record of a process: its C struct, written from the declarations, and what is read from it.

What finds the record and what the hottest hooks add to it fill its first 64 bytes: a switch touches one line of the
cache of each process, and so does a system call.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

from chainbench_agent.abi import command_name
from chainbench_agent.abi.c_struct import CStruct
from chainbench_agent.abi.process import Process
from chainbench_agent.catalog import Counter, Module

HOTTEST = frozenset({"task_ran", "task_waited", "task_blocked", "sys_enter"})
LINE = 64

HEAD = CStruct(tgid="I", run="I", begin_ns="Q", end_ns="Q")  # how struct cb_process begins
RUN_WORD = 1  # of 32 bits
WORD = 8


def c_struct(modules: Iterable[Module]) -> str:
    """`struct cb_process`, whose size is a multiple of a line's."""
    hot, others = _counters(modules)
    used = HEAD.size + command_name.BYTES + WORD * (len(hot) + len(others))
    fields = (
        *("u32 tgid", "u32 run", "u64 begin_ns", "u64 end_ns"),
        *(f"u64 {module.name}_{counter.name}" for module, counter in hot),
        f"char comm[{command_name.BYTES}]",
        *(f"u64 {module.name}_{counter.name}" for module, counter in others),
        *([f"u8 pad[{-used % LINE}]"] if used % LINE else []),
    )
    return "\n".join(["struct cb_process {", *(f"\t{field};" for field in fields), "};", ""])


def processes(memory: memoryview, modules: Sequence[Module], run: int) -> Iterator[Process]:
    """The processes that `run` has a record of.  `memory`: the map `cb_processes`."""
    hot, others = _counters(modules)
    places = {(module.name, counter.name): place for place, (module, counter) in enumerate((*hot, *others))}
    of_module: dict[str, list[tuple[str, int]]] = {}
    for module in modules:
        if counters := module.per_process:
            of_module[module.name] = [(counter.name, places[module.name, counter.name]) for counter in counters]
    record = struct.Struct(f"={len(hot)}Q{command_name.BYTES}s{len(others)}Q")
    size = -(-(HEAD.size + record.size) // LINE) * LINE
    runs = memory.cast("I")[RUN_WORD :: size // 4].tolist()
    for index, of_run in enumerate(runs):
        if of_run == run:
            tgid, _run, _begin, _end = HEAD.unpack_from(memory, index * size)
            numbers = list(record.unpack_from(memory, index * size + HEAD.size))
            name = command_name.decode(numbers.pop(len(hot)))
            yield Process(
                tgid, name, {module: {key: numbers[place] for key, place in keys} for module, keys in of_module.items()}
            )


def _counters(modules: Iterable[Module]) -> tuple[list[tuple[Module, Counter]], list[tuple[Module, Counter]]]:
    """Those of the hottest hooks, and the others."""
    counters = [(module, counter) for module in modules for counter in module.per_process]
    hot = [(module, counter) for module, counter in counters if HOTTEST.intersection(counter.hooks)]
    return hot, [pair for pair in counters if pair not in hot]
