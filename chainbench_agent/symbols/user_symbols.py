"""Addresses of user space by name: where a process that may have ended meanwhile was at work.

What a process has mapped is known from /proc while it lives.  Of one that has ended it is what it had when the run
began, and what perf told of it since.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from chainbench_agent.abi.kernel_text import text_of_path
from chainbench_agent.symbols.elf import FunctionTable, read_functions
from chainbench_agent.symbols.file_mappings import FileMapping, open_mapped_file, read_mappings
from chainbench_agent.symbols.mapping_events import MappingHistory


class UserSymbols:
    """`known`: process → what it had mapped when the run began; `since`: what happened then."""

    def __init__(self, known: Mapping[int, tuple[FileMapping, ...]], since: MappingHistory) -> None:
        self._known, self._since = known, since
        self._found: dict[int, tuple[FileMapping, ...]] = {}
        self._functions: dict[tuple[int, int], FunctionTable] = {}

    def name_of(self, pid: int, address: int) -> str:
        """`function+0x1f [object]`, `object+0x1234` by offset in the file, or the address."""
        found = next((m for m in self._mapped(pid) if m.start <= address < m.end), None)
        if found is None:
            return f"{address:#x}"
        offset = address - found.start + found.offset
        name = self._of(pid, found).name_at(offset)
        file = text_of_path(Path(found.path.removesuffix(" (deleted)")).name)
        return f"{name} [{file}]" if name else f"{file}+{offset:#x}"

    def stack(self, pid: int, called_at: int, addresses: Iterable[int]) -> tuple[str, ...]:
        """Names, innermost first, of a stack that was taken where a function was entered.

        The kernel finds callers by their frames, and so leaves out the last one, as the function has none yet; Linux
        cfa7f3d2c526 ("perf,x86: avoid missing caller address in stack traces captured in uprobe") (in v6.12) sees it.
        """
        _entered, *callers = [*addresses] or [0]
        missing = [called_at] if called_at and callers[:1] != [called_at] else []
        return tuple(self.name_of(pid, address) for address in (*missing, *callers))

    def _mapped(self, pid: int) -> tuple[FileMapping, ...]:
        if pid not in self._found:
            self._found[pid] = read_mappings(pid) or self._since.of(pid, self._known)
        return self._found[pid]

    def _of(self, pid: int, mapped: FileMapping) -> FunctionTable:
        key = mapped.device, mapped.inode
        if key not in self._functions:
            self._functions[key] = self._read(pid, mapped)
        return self._functions[key]

    def _read(self, pid: int, mapped: FileMapping) -> FunctionTable:
        """From the process, or, if that is gone, from the same path, if the same file is there."""
        fd = open_mapped_file(pid, mapped)
        try:
            fd = fd if fd >= 0 else os.open(mapped.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return FunctionTable()
        with open(fd, "rb") as file:  # noqa: PTH123 - it has no path
            return read_functions(file) if os.fstat(fd).st_ino == mapped.inode else FunctionTable()
