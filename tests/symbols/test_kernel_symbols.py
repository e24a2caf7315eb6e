"""Addresses in the kernel become names of functions."""

import pytest

from chainbench_agent.symbols import kernel_symbols
from chainbench_agent.symbols.kernel_symbols import KernelSymbols

KALLSYMS = b"""\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000400 t futex_wait_queue
ffffffff81000800 W weak_function
ffffffff81000200 T __schedule
ffffffff81000600 t do_nanosleep.isra.0
ffffffff81000700 t hrtimer_nanosleep.cold
ffffffff81000900 T __sched_text_start
ffffffff81000a00 T mutex_lock
ffffffff81000b00 T io_schedule
ffffffff81000c00 T __sched_text_end
ffffffff81000d00 t __pfx_ext4_rename
ffffffff81000d10 t ext4_rename
ffffffff82000000 D jiffies
ffffffffc0000000 t nf_hook\t[nf_tables]
"""


@pytest.fixture
def kernel():
    return KernelSymbols(KALLSYMS)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (0xFFFFFFFF81000200, "__schedule"),
        (0xFFFFFFFF810003FF, "__schedule"),
        (0xFFFFFFFF81000400, "futex_wait_queue"),
        (0xFFFFFFFF81000899, "weak_function"),
        (0xFFFFFFFFC0000010, "nf_hook"),
        (0xFFFFFFFF80FFFFFF, ""),
        (0, ""),
    ],
)
def test_an_address_belongs_to_the_nearest_function_below(kernel, address, name):
    """The file is not sorted, and has data among the functions.  Below all functions there is no name."""
    assert kernel.name_of(address) == name


def test_the_compilers_suffixes_are_dropped(kernel):
    """`.isra.0` and `.cold` are parts of the same function."""
    assert kernel.name_of(0xFFFFFFFF81000601) == "do_nanosleep"
    assert kernel.name_of(0xFFFFFFFF81000701) == "hrtimer_nanosleep"


def test_addresses_are_shown(kernel):
    assert not kernel.hidden


@pytest.mark.parametrize(
    "kallsyms",
    [b"0000000000000000 T _stext\n0000000000000000 t futex_wait_queue\n", b""],
    ids=["zeros", "empty"],
)
def test_hidden_addresses_have_no_name(kallsyms):
    """Otherwise all would have the name of the last function."""
    kernel = KernelSymbols(kallsyms)

    assert kernel.hidden
    assert kernel.name_of(0xFFFFFFFF81000200) == ""


def test_the_symbols_are_read_from_the_kernels_file(tmp_path, monkeypatch):
    (tmp_path / "kallsyms").write_bytes(KALLSYMS)
    monkeypatch.setattr(kernel_symbols, "KALLSYMS", tmp_path / "kallsyms")

    assert KernelSymbols.load().name_of(0xFFFFFFFF81000000) == "_stext"


@pytest.mark.parametrize(
    ("called", "named"),
    [
        (0xFFFFFFFF81000A00, ("mutex_lock", "ext4_rename")),
        (0xFFFFFFFF81000B00, ("io_schedule", "ext4_rename")),
        (0xFFFFFFFF81000200, ("ext4_rename",)),  # not of the scheduler's section: it would be in the stack
        (0, ("ext4_rename",)),
    ],
)
def test_a_stack_begins_with_the_lock_that_walks_leave_out(kernel, called, named):
    """The function called by the innermost frame, if it is of the section that the kernel's walks leave out."""
    assert kernel.stack([0xFFFFFFFF81000D20, *[0] * 15], called) == named


def test_a_function_entered_at_its_padding(kernel):
    """Some kernels call a few bytes before it, where another symbol stands."""
    assert kernel.stack([0xFFFFFFFF81000D00]) == ("ext4_rename",)
