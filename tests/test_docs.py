"""The documentation says what the code does."""

from pathlib import Path

from chainbench_agent.export.markdown import metrics_table, with_table
from chainbench_agent.probes import CATALOG

README = Path(__file__).parents[1] / "README.md"


def test_metrics_table_is_up_to_date():
    """If not: `.venv/bin/python -m chainbench_agent.export.markdown README.md`."""
    readme = README.read_text()
    assert with_table(readme, metrics_table(CATALOG)) == readme
