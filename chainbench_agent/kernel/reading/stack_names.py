"""Names the call stacks of a run: those in the maps that modules declare as Stacks."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from chainbench_agent.bpf import libbpf
from chainbench_agent.catalog import CallStack, Frames, Module, Stacks
from chainbench_agent.evidence.sample import Sample
from chainbench_agent.loading.loader import MapFd
from chainbench_agent.symbols.kernel_symbols import KernelSymbols
from chainbench_agent.symbols.user_symbols import UserSymbols

ID_BYTES = 4
"""The key of a BPF_MAP_TYPE_STACK_TRACE."""


def named_stacks(
    maps: Mapping[str, MapFd], modules: Iterable[Module], last: Sample, kernel: KernelSymbols, user: UserSymbols
) -> dict[str, dict[CallStack, Frames]]:
    """Map → stack → its functions; see Names.stacks.  Raises OSError with what the kernel said."""
    found = {}
    for module in modules:
        for stacks in module.stacks:
            name = f"{module.name}_{stacks.name}"
            if stacks.needed is None:
                found[name] = _all_in(maps[name], stacks, kernel)
            elif module.name in last.modules:
                needed = stacks.needed(last.modules[module.name])
                found[name] = {stack: _named(maps[name], stack, kernel, user) for stack in needed}
    return found


def _all_in(table: MapFd, stacks: Stacks, kernel: KernelSymbols) -> dict[CallStack, Frames]:
    """Nothing where the kernel hides addresses."""
    if kernel.hidden:
        return {}
    found = {}
    for key, raw in _entries(table):
        addresses = _addresses(raw)
        called = addresses[stacks.depth :] if stacks.with_callee else ()
        stack = CallStack(int.from_bytes(key, "little"))
        found[stack] = kernel.stack(addresses[: stacks.depth], *called)
    return found


def _entries(table: MapFd) -> Iterable[tuple[bytes, bytes]]:
    """A stack trace map, whose keys are of 32 bits, cannot be read in batches."""
    if table.key_size == ID_BYTES:
        ids = (int.from_bytes(key, "little") for key in libbpf.keys(table.fd, table.key_size))
        return [(stack.to_bytes(ID_BYTES, "little"), _raw(table, stack)) for stack in ids]
    return libbpf.items(table.fd, table.key_size, table.value_size).items()


def _named(table: MapFd, stack: CallStack, kernel: KernelSymbols, user: UserSymbols) -> Frames:
    addresses = [address for address in _addresses(_raw(table, stack.id)) if address]
    if stack.pid:
        return user.stack(stack.pid, stack.called_at, addresses)
    return tuple(map(kernel.name_of, addresses))


def _raw(table: MapFd, stack_id: int) -> bytes:
    """A stack in the map; empty if there is none of that id."""
    try:
        return libbpf.lookup(table.fd, stack_id, table.value_size) if stack_id >= 0 else b""
    except OSError:
        return b""


def _addresses(raw: bytes) -> tuple[int, ...]:
    return struct.unpack(f"={len(raw) // 8}Q", raw)
