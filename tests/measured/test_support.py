"""Every metric has its sources or the reason why it has none, and they are those of docs/support.md."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from chainbench_agent.evidence.metric_keys import reported_key
from chainbench_agent.kernel import preflight
from chainbench_agent.probes import CATALOG

sys.path.append(str(Path(__file__).parents[1] / "vm"))
from debian_kernel import SERIES
from support import RESTRICTED, UPDATE, recorded

pytestmark = pytest.mark.bpf


@pytest.fixture
def column(collector):
    """As in docs/support.md."""
    found = {}
    for module, status in zip(CATALOG, collector.status().modules, strict=True):
        assert module.name == status.name
        found[module.name] = {
            key: {"sources": status.sources[key]}
            if key in status.sources
            else {"unavailable": without_model(status.unavailable.get(key) or status.reason)}
            for key in map(reported_key, module.reported)
        }
    return found


def without_model(reason):
    """Removes the model of the CPU from the name of a counter, as the column is that of a kernel."""
    return re.sub(r"perf event \S+: ", "", reason)


def column_name():
    """The column that this kernel is in; None for a kernel that nobody documented."""
    uname = os.uname()
    if "Debian" in uname.version:
        return next((name for name in SERIES if uname.release.startswith(f"{name}.")), None)
    restricted = not preflight._kprobes().ok and not preflight._fentry().ok
    return RESTRICTED if restricted and uname.release.startswith("6.18.") else None


def test_a_source_or_a_reason(column):
    """One of the two for every metric, never an empty one, and on a documented kernel as documented."""
    assert all(text for metrics in column.values() for cell in metrics.values() for text in cell.values())
    if answer := os.environ.get("CHAINBENCH_SUPPORT"):
        Path(answer).write_text(json.dumps(column))
    elif name := column_name():
        assert column == recorded().get(name), UPDATE
