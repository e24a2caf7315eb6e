"""The shape of the evidence as JSON."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from chainbench_agent.evidence.model import SCHEMA_VERSION, CrossCheck, Evidence, Loss, Run, Target

RUN = Run(
    id="r1",
    machine="host",
    started_at=datetime(2026, 11, 22, 12, tzinfo=UTC),
    duration_ms=1500.5,
    ended_by="stop",
    scenario="kv",
)


def evidence(**more):
    return Evidence(available=True, source="ebpf", run=RUN, target=Target(), sections={"exec": {"forks": 2}}, **more)


def test_sections_stand_at_the_top():
    """Between what says where they come from and what says how far they can be trusted."""
    found = evidence(loss=Loss(), unavailable={"io": "not there"}).as_json()

    assert list(found) == [
        *("schema_version", "available", "source", "reason", "run", "target"),
        "exec",
        *("unavailable", "loss", "cross_check"),
    ]
    assert found["exec"] == {"forks": 2}
    assert found["schema_version"] == SCHEMA_VERSION


def test_what_has_no_value_is_left_out():
    """No `null`, and no zero in place of one."""
    found = evidence().as_json()

    assert "loss" not in found
    assert "cost" not in found


def test_a_run_has_its_labels_and_times():
    """Plain types; the time is ISO 8601 in UTC."""
    assert evidence().as_json()["run"] == {
        "scenario": "kv",
        "impl": "",
        "variant": "",
        "commit": "",
        "dataset": "",
        "id": "r1",
        "machine": "host",
        "started_at": "2026-11-22T12:00:00Z",
        "duration_ms": 1500.5,
        "ended_by": "stop",
        "sample_interval": 1,
    }


@pytest.mark.parametrize(
    ("target", "named"),
    [
        (Target(), {"kind": "machine"}),
        (
            Target(kind="pid", pid=7, processes_seen=2, threads_seen=0),
            {"kind": "pid", "pid": 7, "processes_seen": 2, "threads_seen": 0},
        ),
        (Target(kind="cgroup", cgroup="/a.slice"), {"kind": "cgroup", "cgroup": "/a.slice"}),
    ],
)
def test_the_target_is_named(target, named):
    """The target is in the evidence as it was requested; unknown members are left out."""
    found = evidence().model_copy(update={"target": target}).as_json()["target"]

    assert found == named


def test_an_unknown_kind_of_target_is_refused():
    with pytest.raises(ValidationError, match="kind"):
        Target(kind="thread")


def test_the_ledger_follows_the_sections():
    """Only if there is one."""
    assert "ledger" not in evidence().as_json()
    found = evidence(ledger={"wall_ms": 1.0}).as_json()

    assert list(found)[6:8] == ["exec", "ledger"]
    assert found["ledger"] == {"wall_ms": 1.0}


def test_a_cross_check_says_from_where():
    """`from` is a word of Python, but the key in JSON."""
    check = CrossCheck.model_validate({"ebpf": 1.0, "kernel": 2.0, "from": "/proc/stat", "note": "late"})

    assert evidence(cross_check={"cpu.x": check}).as_json()["cross_check"] == {
        "cpu.x": {"ebpf": 1.0, "kernel": 2.0, "from": "/proc/stat", "note": "late"}
    }


def test_evidence_is_not_changed_afterwards():
    with pytest.raises(ValidationError, match="frozen"):
        evidence().available = False


def test_an_unknown_part_is_refused():
    """A misspelt key must not vanish."""
    with pytest.raises(ValidationError, match="los"):
        evidence(los=Loss())
