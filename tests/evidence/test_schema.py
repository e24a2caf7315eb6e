"""The evidence's schema says what is in evidence, and nothing is there that it does not say."""

from datetime import UTC, datetime

import jsonschema_rs
import pytest

from chainbench_agent.catalog import Counter, Derived, Distribution, HostNames, Module, Table
from chainbench_agent.collector.mock import MockCollector
from chainbench_agent.evidence.model import SCHEMA_VERSION, CrossCheck, Evidence, Run, Target
from chainbench_agent.evidence.schema import document, section
from chainbench_agent.probes import CATALOG

RUN = Run(id="r", machine="m", started_at=datetime(2026, 1, 1, tzinfo=UTC), duration_ms=50, ended_by="stop")


@pytest.fixture
def wrong(strict):
    """`wrong(evidence)` → what does not fit."""
    validator = jsonschema_rs.validator_for(strict(document()))
    return lambda evidence: [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(evidence)]


def test_mock_evidence_fits(wrong):
    """All modules, and nothing that only a measurement can have."""
    collector = MockCollector("no BTF", "boot another kernel", CATALOG)
    assert wrong(collector.evidence(RUN).as_json()) == []


def test_what_has_no_value_need_not_be_there(wrong):
    least = Evidence(available=True, source="ebpf", run=RUN, target=Target(), sections={})
    assert wrong(least.as_json()) == []


def test_what_is_always_there_is_required(wrong):
    check = CrossCheck.model_validate({"ebpf": 1, "kernel": 2, "from": "/proc"})
    more = {"cross_check": {"cpu.on_cpu_ms": check}}
    found = Evidence(available=True, source="ebpf", run=RUN, target=Target(), sections={}, **more).as_json()
    assert wrong(found) == []
    for key in ("schema_version", "available", "source", "reason", "run", "target", "unavailable", "cross_check"):
        (message,) = wrong({name: value for name, value in found.items() if name != key})
        assert key in message


@pytest.mark.parametrize("change", [{"schema_version": SCHEMA_VERSION + 1}, {"exec": {"forks": 1}}, {"extra": 1}])
def test_what_does_not_fit_is_found(wrong, change):
    """Finds another version, a section without its sources, and a key that is not declared."""
    found = Evidence(available=True, source="ebpf", run=RUN, target=Target(), sections={}).as_json()
    assert len(wrong(found | change)) == 1


def test_a_consumer_may_meet_what_it_does_not_know():
    """Only the tests are strict: an addition is no new version."""
    found = Evidence(available=True, source="ebpf", run=RUN, target=Target(), sections={}).as_json()
    assert jsonschema_rs.is_valid(document(), found | {"new": {"x": 1}})


def test_every_kind_of_metric():
    """The declaration gives the type: times are fractions of milliseconds, other counts are whole numbers."""
    module = Module(
        name="queue",
        question="?",
        metrics=(
            Counter(name="pushes", help="a"),
            Counter(name="held_ns", help="b", per_process=True),
            Table(name="busy_ns", help="c", entries=2, names=HostNames("states"), label="state"),
            Distribution(name="drain_ns", help="d"),
            Derived(name="ratio", help="e", of=()),
            Derived(name="reasons", help="f", of=(), label="reason", label_help="g", value="ms"),
            Derived(name="of_each", help="h", of=(), label="pid", label_help="i", value="count"),
        ),
    )
    found = section(module, {"$ref": "#/d"})["properties"]

    assert {key: found[key] for key in ("pushes", "held_ms", "busy_ms", "drain_us", "ratio", "other_processes")} == {
        "pushes": {"description": "a", "type": "integer"},
        "held_ms": {"description": "b", "type": "number"},
        "busy_ms": {"description": "c", "type": "object", "additionalProperties": {"type": "number"}},
        "drain_us": {"description": "d", "$ref": "#/d"},
        "ratio": {"description": "e", "type": "number"},
        "other_processes": {"type": "object", "properties": {"held_ms": {"type": "number"}}},
    }
    assert found["reasons"]["items"] == {
        "type": "object",
        "properties": {
            "reason": {"description": "g", "type": "string"},
            "ms": {"description": "Milliseconds.", "type": "number"},
        },
        "required": ["ms"],
        "additionalProperties": {},
    }
    assert found["of_each"]["items"]["properties"] == {
        "pid": {"description": "i", "type": "integer"},
        "count": {"description": "A count.", "type": "integer"},
    }
    assert {"sources", "unavailable", "scope", "sampling", "top_processes"} <= found.keys()


LISTS = [(module, m) for module in CATALOG for m in module.reported if isinstance(m, Derived) and m.value]


@pytest.mark.parametrize(("module", "metric"), LISTS, ids=lambda one: one.name)
def test_a_list_says_what_its_entries_are_of(module, metric):
    """The meaning of its label, and the types of both."""
    entry = section(module)["properties"][metric.name]["items"]["properties"]

    assert entry[metric.label]["description"]
    assert entry[metric.label]["type"] in {"string", "integer"}
    assert entry[metric.value]["type"] in {"integer", "number", "array"}
