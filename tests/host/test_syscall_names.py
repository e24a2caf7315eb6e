"""The names of system calls."""

import pytest

from chainbench_agent.host.syscall_names import HIGHEST_SYSCALL, syscalls


@pytest.mark.parametrize(
    ("machine", "number", "name"),
    [
        ("x86_64", 202, "futex"),
        ("aarch64", 98, "futex"),
        ("arm64", 98, "futex"),
        ("i386", 240, "futex"),
        ("x86_64", 0, "read"),
        ("x86_64", 321, "bpf"),
        ("aarch64", 280, "bpf"),
    ],
)
def test_a_number_has_the_name_of_its_architecture(machine, number, name):
    assert syscalls(machine)[number] == name


def test_a_number_without_a_system_call_has_no_name():
    """All numbers with a name are below the size of the kernel side's table."""
    found = syscalls("x86_64")

    assert 511 not in found
    assert len(found) > 300
    assert max(found) <= HIGHEST_SYSCALL
