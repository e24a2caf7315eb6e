"""One annotation of a GitHub workflow."""

from __future__ import annotations

from chainbench_agent.compare.build import Compared
from chainbench_agent.compare.rendering import Format
from chainbench_agent.compare.verdict import Verdict

LEVELS = {
    Verdict.FASTER: "notice",
    Verdict.SLOWER: "error",
    Verdict.INCONCLUSIVE: "warning",
    Verdict.NOT_COMPARABLE: "error",
}


def render(compared: Compared) -> str:
    comparison = compared.comparison
    title = f"chainbench: {comparison.verdict.replace('_', ' ')}"
    message = comparison.sentence
    if comparison.certain and comparison.verdict is Verdict.INCONCLUSIVE:
        message += f" What is certain: {comparison.certain}."
    return f"::{LEVELS[comparison.verdict]} title={_property(title)}::{_message(message)}\n"


def _message(text: str) -> str:
    """The escapes that GitHub's runner undoes."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


FORMAT = Format("github", "text/plain; charset=utf-8", "an annotation of a GitHub workflow", render)
