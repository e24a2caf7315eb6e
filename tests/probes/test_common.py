"""probes/lib/common.h and abi/histogram.py are two halves of one convention."""

import ctypes
from random import Random

import pytest
from user_space import fused

from chainbench_agent.abi.histogram import lower_bound_ns, slot_of, upper_bound_ns
from chainbench_agent.catalog import HISTOGRAM_SLOTS

EDGES = {0, 1, 2, 3, 15, 16, 17} | {2**k + d for k in range(1, 63) for d in (-1, 0, 1)}
_RANDOM = Random(20)  # noqa: S311 - no secret; it has to be repeatable
ANY = {int(2 ** _RANDOM.uniform(0, 64)) for _ in range(10_000)}

EXPORT = """
u32 exported_slot(u64 ns) { return cb_slot(ns); }
u32 exported_log2(u64 value) { return cb_log2(value); }
void exported_observe(u64 ns, u32 run, struct cb_histogram *histogram)
{
	struct cb_config config = { .run = run };
	struct cb_event event = { .config = &config };

	cb_observe(&event, histogram, ns);
}
u64 exported_clamp(u64 index, u64 entries) { return cb_clamp(index, entries); }
"""


@pytest.fixture(scope="module")
def common(compile_unit):
    library = ctypes.CDLL(str(compile_unit(fused().text + EXPORT, "common")))
    library.exported_clamp.restype = ctypes.c_uint64
    return library


def slot(common, ns):
    return common.exported_slot(ctypes.c_uint64(ns))


@pytest.mark.parametrize("values", [EDGES, ANY], ids=["edges", "any"])
def test_both_halves_agree(common, values):
    """C and Python put each value into the same slot; in both, what lies beyond goes to the last."""
    differing = {ns for ns in values if min(slot(common, ns), HISTOGRAM_SLOTS - 1) != slot_of(ns)}

    assert differing == set()


def test_a_value_lies_within_its_slot(common):
    """Above the lower bound, up to and including the upper one."""
    for ns in (EDGES | ANY) - {0}:
        found = slot(common, ns)
        assert lower_bound_ns(found) < ns <= upper_bound_ns(found)


def test_slots_are_monotone(common):
    """A larger value is never in a lower slot, and no slot is skipped."""
    slots = [slot(common, ns) for ns in sorted(EDGES | ANY)]
    assert slots == sorted(slots)
    assert {slot(common, upper_bound_ns(number)) for number in range(HISTOGRAM_SLOTS)} == set(range(HISTOGRAM_SLOTS))


def test_log2(common):
    """The number of the highest bit, without an instruction for it."""
    for value in (EDGES | ANY) - {0}:
        assert common.exported_log2(ctypes.c_uint64(value)) == value.bit_length() - 1


def test_clamp(common):
    """An index that lies beyond is the last one, however wide it is."""
    clamped = [common.exported_clamp(ctypes.c_uint64(i), ctypes.c_uint64(10)) for i in (0, 9, 10, 2**32, 2**64 - 1)]
    assert clamped == [0, 9, 9, 9, 9]


def test_extremes_are_those_of_one_run(common):
    """Slots and sum only grow; min and max begin again with each run."""
    memory = (ctypes.c_uint64 * (HISTOGRAM_SLOTS + 4))()

    def observe(run, *values):
        for ns in values:
            common.exported_observe(ctypes.c_uint64(ns), run, memory)
        return list(memory[:4])

    assert observe(1, 500, 300, 700) == [1500, 300, 700, 1]
    assert observe(2, 400) == [1900, 400, 400, 2]
    assert sum(memory[4:]) == 4


def test_what_is_too_long_is_counted_in_the_last_slot(common):
    """A day does not write beyond the histogram, and is exact in max."""
    memory = (ctypes.c_uint64 * (HISTOGRAM_SLOTS + 4))()
    day_ns = 86_400 * 10**9

    common.exported_observe(ctypes.c_uint64(day_ns), 1, memory)

    assert memory[4 + HISTOGRAM_SLOTS - 1] == 1
    assert list(memory[:4]) == [day_ns, day_ns, day_ns, 1]
