"""A module that cannot be read or derived is missing with the reason; all others stay as they are."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from chainbench_agent.catalog import Names
from chainbench_agent.evidence.build import Method, build
from chainbench_agent.evidence.isolate_failures import one_by_one
from chainbench_agent.evidence.model import Run, Target
from chainbench_agent.probes import CATALOG

RUN = Run(id="1", machine="host", started_at=datetime(2026, 1, 1, tzinfo=UTC), duration_ms=1000, ended_by="stop")
NAMES = Names(tables={}, stacks={}, throttled_before={}, throttled_after={})
SECOND = 10**9
WHY = "its figures could not be read: Bad file descriptor"


def built(first, last, modules=CATALOG, target=None):
    """The evidence as JSON."""
    method = Method(
        modules=tuple(modules),
        sources={module.name: {} for module in modules},
        unavailable={module.name: {} for module in modules},
        absent={},
        program_sources={},
        cpus=2,
        target=target or Target(),
    )
    return build(RUN, method, first, last, NAMES).as_json()


def unread(sample, *names):
    others = {name: values for name, values in sample.modules.items() if name not in names}
    return replace(sample, modules=others, unread=dict.fromkeys(names, WHY))


@pytest.mark.parametrize("module", CATALOG, ids=lambda module: module.name)
@pytest.mark.parametrize("when", ["first", "last"])
def test_a_module_that_cannot_be_read(sample, module, when):
    """If it fails at either edge of the run, it has no zeros, and all figures of other modules stay the same."""
    edges = {"first": sample(0), "last": sample(SECOND, exec={"exec_count": 53}, syscalls={"calls": (23,) * 512})}
    whole = built(**edges)
    edges[when] = unread(edges[when], module.name)
    found = built(**edges)

    assert found["available"] is True
    assert found.pop("unavailable") == {module.name: WHY}
    assert found.pop("self_check")["checked"] <= whole.pop("self_check")["checked"]
    del whole["unavailable"], whole[module.section_key]
    checked = {name for name in whole["cross_check"] if name.startswith(f"{module.name}.")}
    whole["cross_check"] = {name: check for name, check in whole["cross_check"].items() if name not in checked}
    assert found == whole


def test_the_ledger_goes_with_its_module(sample):
    """The ledger is absent with the reason of the module that it needs."""
    target = Target(kind="pid", pid=7)
    found = built(sample(0), unread(sample(SECOND), "offcpu"), target=target)

    assert "ledger" not in found
    assert found["unavailable"] == {"offcpu": WHY, "ledger": WHY}


def test_a_module_that_does_not_collect_is_not_missed(sample):
    """A module that is off needs no reason for being absent."""
    (exec_,) = (module for module in CATALOG if module.name == "exec")
    found = built(sample(0), unread(sample(SECOND, exec={"exec_count": 53}), "cpu"), [exec_])

    assert found["exec"]["exec_count"] == 53
    assert found["unavailable"] == {}


def test_a_mistake_in_what_one_module_derives(sample):
    """The reason names the mistake and its place."""

    def wrong(_counts, _names):
        return 1 / 0

    modules = [replace(module, derive=wrong) if module.name == "locks" else module for module in CATALOG]
    found = built(sample(0), sample(SECOND, exec={"exec_count": 53}), modules)
    why = found["unavailable"].pop("locks")

    assert why.startswith("its figures could not be derived: ZeroDivisionError: division by zero")
    assert "(test_isolate_failures.py, line " in why
    assert found["unavailable"] == {}
    assert {module.section_key for module in CATALOG} - found.keys() == {"locks"}
    assert found["exec"]["exec_count"] == 53


def test_one_by_one():
    """A module that fails does not stop those after it."""
    modules = CATALOG[:3]
    found, failed = one_by_one(modules, lambda module: {modules[0]: 1, modules[2]: 3}[module])

    assert found == {modules[0]: 1, modules[2]: 3}
    assert failed.keys() == {modules[1].name}
