"""Structs with named members."""

from chainbench_agent.abi.c_struct import CStruct


def test_members_are_packed_in_their_order_without_padding():
    """`8x` is skipped, `16s` is text."""
    struct = CStruct(pid="I", gap="8x", at_ns="Q", name="16s")

    assert list(struct.members) == ["pid", "gap", "at_ns", "name"]
    assert struct.size == 4 + 8 + 8 + 16
    assert struct.unpack(struct.pack(7, 9, b"sh")) == (7, 9, b"sh" + bytes(14))
