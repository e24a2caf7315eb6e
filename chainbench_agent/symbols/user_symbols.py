"""Names addresses in user space, also of processes that have ended since.

The mappings of a living process are in /proc.  For an ended process, the mappings at the start of the run and the
events of perf since then are used.
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
    """`known`: process → mappings when the run began; `since`: mappings and forks since then."""

    def __init__(self, known: Mapping[int, tuple[FileMapping, ...]], since: MappingHistory) -> None:
        self._known, self._since = known, since
        self._found: dict[int, tuple[FileMapping, ...]] = {}
        self._functions: dict[tuple[int, int], FunctionTable] = {}

    def name_of(self, pid: int, address: int) -> str:
        """`function+0x1f [file]`; `file+0x1234`, by offset in the file, without a known function; or the address."""
        found = next((m for m in self._mapped(pid) if m.start <= address < m.end), None)
        if found is None:
            return f"{address:#x}"
        offset = address - found.start + found.offset
        name = self._of(pid, found).name_at(offset)
        file = text_of_path(Path(found.path.removesuffix(" (deleted)")).name)
        return f"{name} [{file}]" if name else f"{file}+{offset:#x}"

    def stack(self, pid: int, called_at: int, addresses: Iterable[int]) -> tuple[str, ...]:
        """The names, innermost first, of a stack that was recorded at the entry of a function.

        The kernel finds callers by their frames, and so misses the last one, as the function has no frame yet; Linux
        cfa7f3d2c526 ("perf,x86: avoid missing caller address in stack traces captured in uprobe") (in v6.12) finds it.
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
        """The functions of a mapped file, read through the process, or from the same path if the same file is there."""
        fd = open_mapped_file(pid, mapped)
        try:
            fd = fd if fd >= 0 else os.open(mapped.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return FunctionTable()
        with open(fd, "rb") as file:  # noqa: PTH123 - it is a descriptor
            return read_functions(file) if os.fstat(fd).st_ino == mapped.inode else FunctionTable()
