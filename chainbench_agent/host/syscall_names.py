"""The names of system calls, by their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache

HIGHEST_SYSCALL = 511


@cache
def syscalls(machine: str) -> Mapping[int, str]:
    """Number → name on `machine`, from the tables of the `system-calls` package."""
    from system_calls import NoSuchSystemCall  # noqa: PLC0415 - needed once a run ends
    from system_calls import syscalls as tables  # noqa: PLC0415

    architecture = {"aarch64": "arm64"}.get(machine, machine)
    table, found = tables(), {}
    for number in range(HIGHEST_SYSCALL + 1):
        with suppress(NoSuchSystemCall):
            found[number] = table.get_name(number, architecture)
    return found
