"""JUnit XML: slower is a failure, inconclusive is skipped, not comparable is an error."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from chainbench_agent.compare.build import Compared
from chainbench_agent.compare.formats import text
from chainbench_agent.compare.phrases import side_name
from chainbench_agent.compare.rendering import Format
from chainbench_agent.compare.verdict import Verdict

OUTCOMES = {Verdict.SLOWER: "failure", Verdict.INCONCLUSIVE: "skipped", Verdict.NOT_COMPARABLE: "error"}
COUNTS = {"failure": "failures", "skipped": "skipped", "error": "errors"}


def render(compared: Compared) -> str:
    comparison = compared.comparison
    outcome = OUTCOMES.get(comparison.verdict, "")
    counts = {attribute: str(int(kind == outcome)) for kind, attribute in COUNTS.items()}
    seconds = f"{sum(comparison.optimized.durations_ms) / 1000:.3f}"
    suite = Element("testsuite", {"name": "chainbench", "tests": "1", **counts, "time": seconds})
    name = _printable(side_name(comparison.optimized))
    case = SubElement(suite, "testcase", {"classname": "chainbench.compare", "name": name, "time": seconds})
    if outcome:
        SubElement(case, outcome, {"message": comparison.sentence, "type": comparison.verdict.value})
    SubElement(case, "system-out").text = _printable(text.render(compared))
    indent(suite)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{tostring(suite, encoding="unicode")}\n'


def _printable(text_: str) -> str:
    """Without the control characters that XML cannot hold; labels may have them."""
    return "".join(character for character in text_ if character.isprintable() or character in "\n\t")


FORMAT = Format("junit", "application/xml", "a test result for CI servers", render)
