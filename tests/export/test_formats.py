"""Evidence is rendered by the name of a format, and each format is one file."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from chainbench_agent.collector.mock import MockCollector
from chainbench_agent.evidence.model import Evidence, Run, Target
from chainbench_agent.export import formats
from chainbench_agent.export.families import run_samples
from chainbench_agent.export.formats import FORMATS
from chainbench_agent.export.formats.as_table import Cell, aligned
from chainbench_agent.export.series import catalog_families
from chainbench_agent.probes import CATALOG


def run(scenario, **labels):
    started_at = datetime(2026, 11, 22, tzinfo=UTC)
    return Run(
        id=scenario, machine="m", started_at=started_at, duration_ms=1500, ended_by="stop", scenario=scenario, **labels
    )


def made_up(scenario):
    return MockCollector("no BTF", "", CATALOG).evidence(run(scenario))


def measured(scenario, **sections):
    return Evidence(available=True, source="ebpf", run=run(scenario), target=Target(), sections=sections)


def rows(text):
    """Title of a row → its cells."""
    lines = (re.split(r"\s{3,}", line.strip()) for line in text.splitlines()[1:])
    return {name: cells for name, *cells in lines}


def test_a_format_is_a_file():
    """None has to be listed, and no two have one name."""
    files = [path for path in Path(formats.__file__).parent.glob("*.py") if path.stem != "__init__"]

    assert len(FORMATS) == len(files)
    assert {"json", "prometheus", "table"} <= FORMATS.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_renders_one_run_and_several(name):
    """As text that ends with a newline, and of a type that HTTP knows."""
    form = FORMATS[name]

    for runs in ([made_up("a")], [made_up("a"), made_up("b"), measured("c")]):
        assert form.render(runs).endswith("\n")
    assert form.name == name
    assert "/" in form.media_type


def test_json_is_the_evidence():
    one, other = made_up("a"), made_up("b")

    assert json.loads(FORMATS["json"].render([one])) == one.as_json()
    assert json.loads(FORMATS["json"].render([one, other])) == [one.as_json(), other.as_json()]


def series(text):
    families = text_string_to_metric_families(text)
    return [(s.name, tuple(sorted(s.labels.items())), s.value) for family in families for s in family.samples]


def test_prometheus_has_the_series_of_each_run():
    one, other = made_up("a"), made_up("b")

    assert sorted(series(FORMATS["prometheus"].render([one, other]))) == sorted(
        (sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for evidence in (one, other)
        for family in run_samples(catalog_families(CATALOG), evidence)
        for sample in family.samples
    )


def test_prometheus_has_no_series_twice():
    """The last of several runs with equal labels counts, as in /metrics."""
    earlier, later = measured("a", exec={"exec_count": 3}), measured("a", exec={"exec_count": 5})
    found = series(FORMATS["prometheus"].render([earlier, later]))

    assert [value for name, _, value in found if name == "chainbench_exec_count_total"] == [5]


def test_the_table():
    """A column for each run, and a ratio for two; absent is no zero, and an estimate has its error."""
    errors = {"read": 4.5}
    sampled = {"read": 20, "sampling": {"interval": 2, "zero_means_below": 5, "standard_error": errors}}
    one = measured("slow", exec={"exec_count": 1200}, syscall_counts=sampled)
    other = measured("fast", exec={"exec_count": 600})
    table = FORMATS["table"].render([one, other])

    assert table.split()[:3] == ["slow", "fast", "ratio"]
    assert rows(table)["run (ms)"] == ["1,500.0", "1,500.0", "1.0 x"]
    assert rows(table)["programs started"] == ["1,200", "600", "2.0 x"]
    assert rows(table)["context switches"] == ["-", "-"]
    assert rows(table)["system call read"] == ["20 ± 4.5", "-"]
    assert "ratio" not in FORMATS["table"].render([one])


def test_the_table_marks_mock_data():
    assert FORMATS["table"].render([made_up("slow"), measured("fast")]).split()[:3] == ["slow", "(mock)", "fast"]


def test_the_table_of_one_run_has_its_most_frequent_system_calls():
    counts = {f"call{i}": i for i in range(1, 9)} | {"fsync": 99}
    table = FORMATS["table"].render([measured("a", syscall_counts=counts)])

    assert [name for name in rows(table) if "call call" in name] == [f"system call call{i}" for i in range(8, 2, -1)]


def test_columns_are_aligned():
    lines = aligned(["one"], [("a", [Cell(1)]), ("longer", [Cell(1000.5)]), ("none", [None])]).splitlines()

    assert {len(line) for line in lines} == {len("longer   1,000.5")}
