"""docs/api.md, "From Python": its example runs, and it names what there is."""

import re
from pathlib import Path

from chainbench_agent import client

SECTION = re.search(
    r"^## From Python\n(.*?)^## ", (Path(__file__).parents[2] / "docs/api.md").read_text(), re.MULTILINE | re.DOTALL
)[1]
MOCK = """
    from chainbench_agent.collector.mock import MockCollector
    from chainbench_agent.probes import CATALOG
    return MockCollector('no BTF', 'boot another kernel', CATALOG)
"""


def test_the_example_runs(daemon, capsys):
    """As it is printed, but for the agent's address."""
    agent = daemon(MOCK)
    example = re.search(r"^```python\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)[1]
    assert "http://127.0.0.1:9090" in example

    exec(example.replace("http://127.0.0.1:9090", agent.url), {})  # noqa: S102 - the page's own text

    assert re.fullmatch(r"\d+ context switches\n", capsys.readouterr().out)
    assert "chainbench_gain_percent{" in agent.client.metrics()


def test_every_call_and_every_error_is_named():
    calls = {name for name in vars(client.Agent) if not name.startswith("_")}
    errors = {name for name in client.__all__ if name.endswith("Error")}

    assert {name for name in calls | errors if f"`{name}`" not in SECTION} == set()
