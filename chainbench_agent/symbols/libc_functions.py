"""Locates functions of the C libraries that a target's processes use, for uprobes.

A process' C library is in its mappings, or in its own program if that is linked statically.  A target may have several
C libraries, as its processes may be in different containers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from chainbench_agent.symbols.elf import FunctionTable, is_statically_linked, read_functions
from chainbench_agent.symbols.file_mappings import FileMapping, open_mapped_file, read_mappings

PROC = Path("/proc")
C_LIBRARY = re.compile(r"/(libc|libpthread|ld-musl)[-.][^/]*$")
"""The files of glibc, which before 2.34 were two, and of musl, whose library is its dynamic linker."""


class FunctionLocation(NamedTuple):
    """The start of a function.  `file`: a path by which this process can open the file, in whatever namespace it is."""

    file: str
    offset: int


class LibcFunctions:
    """The functions of the C libraries that `processes` use.  The files remain open until close()."""

    def __init__(self, processes: Iterable[int]) -> None:
        self.mapped: dict[int, tuple[FileMapping, ...]] = {}
        self._files: dict[int, FunctionTable] = {}
        seen: set[tuple[int, int]] = set()
        for pid in processes:
            self.mapped[pid] = read_mappings(pid)
            for mapping in self.mapped[pid]:
                if (mapping.device, mapping.inode) not in seen:
                    seen.add((mapping.device, mapping.inode))
                    self._read(pid, mapping)

    def _read(self, pid: int, mapping: FileMapping) -> None:
        library = bool(C_LIBRARY.search(mapping.path))
        if not library and not _is_program(pid, mapping):
            return
        fd = open_mapped_file(pid, mapping)
        if fd < 0:
            return
        with open(fd, "rb", closefd=False) as file:
            functions = read_functions(file) if library or is_statically_linked(file) else FunctionTable()
        if functions:
            self._files[fd] = functions
        else:
            os.close(fd)

    def locations(self, name: str) -> list[FunctionLocation]:
        """The location of every function called `name`."""
        return [
            FunctionLocation(f"/proc/self/fd/{fd}", offset)
            for fd, functions in self._files.items()
            for offset in sorted(functions.offsets(name))
        ]

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[0])


def _is_program(pid: int, mapping: FileMapping) -> bool:
    try:
        return (PROC / str(pid) / "exe").readlink() == Path(mapping.path)
    except OSError:
        return False
