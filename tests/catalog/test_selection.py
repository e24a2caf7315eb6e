"""Names of modules and options: what they stand for, and what they do not."""

import pytest

from chainbench_agent.catalog.selection import EVERYTHING, Selection, choose, unknown

KNOWN = ("cpu", "locks", "locks:order", "locks:holders")


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (("all",), ("cpu", "locks")),
        (("locks", "cpu"), ("cpu", "locks")),
        (("locks:order",), ("locks", "locks:order")),
        (("all", "locks:holders"), ("cpu", "locks", "locks:holders")),
        ((), ()),
    ],
)
def test_choose(asked, chosen):
    """`all` are the modules; an option has to be named, and brings its module."""
    assert choose(asked, KNOWN) == chosen


@pytest.mark.parametrize(
    ("asked", "strangers"),
    [
        (("all", "cpu", "locks:order"), ()),
        (("disk", "cpu", "disk"), ("disk",)),
        (("cpu:order", "order", ":order", "locks:", ""), ("cpu:order", "order", ":order", "locks:", "")),
    ],
)
def test_unknown(asked, strangers):
    """Each once; an option is known with its own module only."""
    assert unknown(asked, KNOWN) == strangers


def test_a_plan():
    """Nothing named is every module, but no option; an option named is its module as well."""
    order = Selection(("locks:order",))

    assert [EVERYTHING.collects(name) for name in ("cpu", "locks")] == [True, True]
    assert [order.collects(name) for name in ("cpu", "locks", "lock")] == [False, True, False]
    assert [selection.includes("locks:order") for selection in (EVERYTHING, Selection(("locks",)), order)] == [
        False,
        False,
        True,
    ]
    assert all(selection.includes("") for selection in (EVERYTHING, order))
