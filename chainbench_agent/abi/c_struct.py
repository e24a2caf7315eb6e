"""The layout of a C struct of probes/, member by member: Python reads with it what the kernel side writes.

tests/probes/test_layout.py compares names, order and types with the C code.
"""

from __future__ import annotations

from struct import Struct


class CStruct(Struct):
    """A `struct.Struct` whose members have names: name → code, such as "Q"; "16s" is text, and "8x" is skipped."""

    def __init__(self, **members: str) -> None:
        super().__init__("=" + "".join(members.values()))
        self.members = members
