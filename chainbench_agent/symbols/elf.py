"""Reads the functions of a program or library from the symbol table of its ELF file."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from chainbench_agent.abi.kernel_text import text_of

_SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym: name, info, other, section, value, size
_FUNCTIONS = (2, 10)  # STT_FUNC, STT_GNU_IFUNC
_UNDEFINED = 0  # SHN_UNDEF


class FunctionTable:
    """Functions by name and by offset in the file, as mappings and uprobes use it; names may share an offset."""

    def __init__(self, found: Iterable[tuple[int, int, str]] = ()) -> None:
        """`found`: (offset, bytes, name)."""
        ordered = sorted(found)
        self._offsets = array("Q", (offset for offset, _, _ in ordered))
        self._sizes = array("Q", (size for _, size, _ in ordered))
        self._names = [name for _, _, name in ordered]

    def __bool__(self) -> bool:
        return bool(self._names)

    def offsets(self, name: str) -> set[int]:
        """Offsets of the functions of this name: several if the symbol has versions."""
        return {self._offsets[index] for index, known in enumerate(self._names) if known == name}

    def name_at(self, offset: int) -> str:
        """`function+0x1f`; empty if no known function is there."""
        index = bisect_right(self._offsets, offset) - 1
        if index < 0 or offset >= self._offsets[index] + self._sizes[index]:
            return ""
        return f"{self._names[index]}+{offset - self._offsets[index]:#x}"


def read_functions(file: BinaryIO) -> FunctionTable:
    """All functions, or the exported ones of a stripped file; empty if it is not a 64-bit ELF file."""
    elf = _open(file)
    return FunctionTable(_functions(elf) if elf and elf.elfclass == 64 and elf.little_endian else ())


def is_statically_linked(file: BinaryIO) -> bool:
    """Whether a file is a statically linked program, which contains its own libc."""
    elf = _open(file)
    return bool(elf) and not any(segment["p_type"] == "PT_INTERP" for segment in elf.iter_segments())


def _open(file: BinaryIO) -> Any:
    """The ELFFile; None if the file is not ELF."""
    from elftools.common.exceptions import ELFError  # noqa: PLC0415 - 3 MB that only an option needs
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415

    try:
        return ELFFile(file)
    except ELFError:
        return None


def _functions(elf: Any) -> Iterator[tuple[int, int, str]]:
    loaded = [(s["p_vaddr"], s["p_filesz"], s["p_offset"]) for s in elf.iter_segments("PT_LOAD")]
    table = elf.get_section_by_name(".symtab") or elf.get_section_by_name(".dynsym")
    if table is None:
        return
    names: bytes = elf.get_section(table["sh_link"]).data()
    for name, info, _, section, value, size in _SYMBOL.iter_unpack(table.data()):
        if info & 0xF not in _FUNCTIONS or section == _UNDEFINED:
            continue
        for start, length, offset in loaded:
            if start <= value < start + length:
                yield value - start + offset, size, text_of(names[name : names.index(b"\0", name)])
