"""The hooks that a run attaches: those of its selection, and no others."""

import pytest

from chainbench_agent.catalog import Counter, Hook, Module
from chainbench_agent.catalog.selection import EVERYTHING, Selection
from chainbench_agent.kernel.selected_hooks import idle_modules, selected_hooks

FOLLOWS = frozenset({"fork", "exit"})


def module(name, *hooks):
    return Module(name=name, question="?", metrics=(Counter(name="x", help="", hooks=hooks),))


DISK, TIMES, LOCKS = module("disk", "issue", "queue"), module("times", "waited"), module("locks", "taken", "acquired")
MODULES = (DISK, TIMES, LOCKS)
HOOK = {
    hook.name: hook
    for hook in (
        Hook("issue", ()),
        Hook("queue", (), targeted=True),
        Hook("waited", (), raised_on=("switch", "wakeup")),
        Hook("switch", ()),
        Hook("wakeup", ()),
        Hook("taken", ()),
        Hook("acquired", (), option="locks:order"),
    )
}


@pytest.mark.parametrize(
    ("probes", "hooks"),
    [
        ((), {"issue", "queue", "switch", "wakeup", "taken"}),
        (("disk",), {"issue", "queue"}),
        (("times",), {"switch", "wakeup"}),
        (("locks",), {"taken"}),
        (("locks", "locks:order"), {"taken", "acquired"}),
    ],
)
def test_wanted(probes, hooks):
    """A raised hook by what it is raised on; the target is followed, and processes are named, whatever is chosen."""
    assert selected_hooks(MODULES, HOOK, FOLLOWS, Selection(probes)) == FOLLOWS | hooks


def test_idle_modules():
    """The bits of those that are not chosen, in the order of the unit."""
    assert idle_modules(MODULES, EVERYTHING) == 0
    assert idle_modules(MODULES, Selection(("times",))) == 0b101
    assert idle_modules(MODULES, Selection(("locks:order",))) == 0b011
