"""The formats that programs read, read by programs."""

import csv
import io
import json
from xml.etree import ElementTree as ET

import pytest


def test_json_is_the_comparison(compared, rendered):
    assert json.loads(rendered("json")) == compared().comparison.as_json()


def test_csv_has_the_duration_the_lines_and_the_metrics(rendered):
    rows = list(csv.DictReader(io.StringIO(rendered("csv"))))

    assert (rows[0]["kind"], rows[0]["unit"], rows[0]["verdict"]) == ("duration", "ms", "faster")
    assert [row["name"] for row in rows if row["kind"] == "line"] == ["disk", "on_cpu", "pipe"]
    total = sum(float(row["change"]) for row in rows if row["kind"] == "line")
    assert total == pytest.approx(float(rows[0]["change"]), abs=1e-4)
    assert any(row["kind"] == "supporting" for row in rows)


@pytest.mark.parametrize(
    ("case", "outcome"),
    [({}, None), ({"after": 100.0}, "skipped"), ({"after": 200.0}, "failure"), ({"ended_by": "shutdown"}, "error")],
)
def test_junit_knows_four_outcomes(rendered, case, outcome):
    """The counts of the suite agree with its only case; labels with control characters do no harm."""
    suite = ET.fromstring(rendered("junit", variant="\x1b[31m<v>", **case).encode())  # noqa: S314 - our own
    (test,) = suite.findall("testcase")
    found = [kind for kind in ("skipped", "failure", "error") if test.find(kind) is not None]

    assert found == [outcome] * (outcome is not None)
    assert {k: suite.get(k) for k in ("tests", "skipped", "failures", "errors")} == {
        "tests": "1",
        "skipped": str(int(outcome == "skipped")),
        "failures": str(int(outcome == "failure")),
        "errors": str(int(outcome == "error")),
    }
    assert "<v>" in test.get("name")


@pytest.mark.parametrize(
    ("case", "level"),
    [({}, "notice"), ({"after": 100.0}, "warning"), ({"after": 200.0}, "error"), ({"ended_by": "shutdown"}, "error")],
)
def test_github_gets_one_annotation(rendered, case, level):
    """One line, with what would end it escaped."""
    text = rendered("github", **case)

    assert text.startswith(f"::{level} title=chainbench%3A ")
    assert text.count("\n") == 1
    assert "%25" in text or "ended" in text


def test_bmf_has_nanoseconds_with_bounds(compared, rendered):
    summary = compared().comparison.optimized.summary
    (measures,) = json.loads(rendered("bmf")).values()

    assert measures["latency"] == {
        "value": summary.typical_ms * 1e6,
        "lower_value": summary.min_ms * 1e6,
        "upper_value": summary.max_ms * 1e6,
    }
    assert measures["change-percent"]["lower_value"] <= measures["change-percent"]["value"] < 0


def test_gha_benchmark_has_an_entry_a_side(compared, rendered):
    """Names that differ, because the action keeps a history of each."""
    comparison = compared().comparison
    entries = json.loads(rendered("gha-benchmark"))

    assert [entry["value"] for entry in entries] == [
        comparison.baseline.summary.typical_ms,
        comparison.optimized.summary.typical_ms,
    ]
    assert len({entry["name"] for entry in entries}) == 2
    assert {entry["unit"] for entry in entries} == {"ms"}
