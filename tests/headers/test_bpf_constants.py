"""The numbers of the BPF ABI."""

import pytest

from chainbench_agent.headers.bpf_constants import bpf_constants
from chainbench_agent.headers.btf import Btf


@pytest.mark.bpf
@pytest.mark.parametrize("first", ["BPF_FUNC_unspec", "BPF_MAP_TYPE_UNSPEC"])
def test_names_that_this_kernel_has_too_have_its_numbers(first):
    known = bpf_constants()
    kernel = dict(Btf.load().find_enumerator(first).values)
    common = known.keys() & kernel.keys()

    assert len(common) > 25
    assert {name: known[name] for name in common} == {name: kernel[name] for name in common}


def test_numbers_count_from_zero():
    """A word that is missing in the list would shift all that follow."""
    known = bpf_constants()

    assert (known["BPF_FUNC_unspec"], known["BPF_FUNC_ringbuf_output"], known["BPF_FUNC_cgrp_storage_delete"]) == (
        0,
        130,
        211,
    )
    assert (known["BPF_MAP_TYPE_UNSPEC"], known["BPF_MAP_TYPE_RINGBUF"], known["BPF_MAP_TYPE_ARENA"]) == (0, 27, 33)
