"""The 16 bytes of a thread's name, as text."""

import pytest

from chainbench_agent.abi import command_name


@pytest.mark.parametrize(
    ("raw", "name"),
    [(b"a\0garbage", "a"), (b"fifteen letters", "fifteen letters"), (b"caf\xe9\0", r"caf\xe9")],
)
def test_the_name_ends_before_the_first_zero(raw, name):
    assert command_name.decode(raw) == name
