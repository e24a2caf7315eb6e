"""Measured evidence fits the schema that docs/evidence.schema.json is."""

import jsonschema_rs
import pytest

from chainbench_agent.catalog.selection import Selection
from chainbench_agent.evidence.schema import document
from chainbench_agent.probes import CATALOG

pytestmark = [pytest.mark.bpf, pytest.mark.portable]

EVERYTHING = Selection(tuple(name for module in CATALOG for name in module.names), 10)


def test_measured_evidence_fits(strict, targeted, measure, python):
    """Every key is declared, for a target with all options and sampling, and for the whole machine."""
    wrong = jsonschema_rs.validator_for(strict(document())).iter_errors
    code = "import subprocess\nfor _ in range(23): subprocess.run(['/bin/true'])\nopen('/proc/self/stat').read()"

    for evidence in (targeted(code).run(selection=EVERYTHING), measure(lambda: python(code))):
        assert [f"{error.instance_path}: {error.message}" for error in wrong(evidence)] == []
        assert evidence["exec"]["exec_count"] >= 23
