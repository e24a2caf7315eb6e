"""docs/glossary.md defines terms that are in use, and the words that they replace are used nowhere."""

import re
from pathlib import Path

import pytest
from click import Group

from chainbench_agent.commands.main import main
from chainbench_agent.kernel.preflight import REMEDIES
from chainbench_agent.settings import Settings

REPO = Path(__file__).parents[1]
GLOSSARY = (REPO / "docs/glossary.md").read_text()
TERMS = {
    term.strip("`"): meaning
    for term, meaning in re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", GLOSSARY, re.MULTILINE)
    if term not in {"term", "---"}
}


INSTEAD_OF = {
    "stored run": ("kept run", "runs are kept", "saved run"),
    "active": ("run is on", "run that is on", "running run"),
    "PMU counters": ("hardware counter", "CPU counter"),
    "problem document": ("error document",),
    "remedy": ("mend", "cure"),
    "runner": ("caller of the agent",),
    "self-check": ("sanity check", "consistency check"),
    "target": ("watched process", "who is meant", "whom to watch"),
    "unexplained": ("unaccounted",),
    "idle thread": ("threads? that hardly ran", "hardly running"),
}
"""Term → the synonyms that readers would take for something else."""


def pages():
    """The pages for users; decisions are not included, because they describe former states."""
    return [REPO / "README.md", REPO / "CONTRIBUTING.md", REPO / "CHANGELOG.md", *sorted((REPO / "docs").glob("*.md"))]


def commands(command):
    yield command
    for below in command.commands.values() if isinstance(command, Group) else ():
        yield from commands(below)


def sentences():
    """(where, text) of all that users read: pages, settings, help, remedies."""
    yield from ((path.name, path.read_text()) for path in pages())
    yield from ((f"--{name}", field.description) for name, field in Settings.model_fields.items())
    yield from ((command.name, command.help or "") for command in commands(main))
    yield from REMEDIES.items()


def test_the_glossary_has_terms():
    assert len(TERMS) > 50
    assert {"run", "target", "module", "hook", "evidence", "ledger"} <= TERMS.keys()


@pytest.mark.parametrize("term", sorted(TERMS))
def test_each_term_is_used(term):
    """On another page, in singular or plural, with a hyphen or without."""
    words = re.sub(r"[- ]", r"[-_\\s]", term)
    others = "\n".join(text for where, text in sentences() if where != "glossary.md")

    assert re.search(rf"(?<![a-z]){words}(?:e?s)?(?![a-z])", others, re.IGNORECASE), term


@pytest.mark.parametrize(("term", "synonyms"), INSTEAD_OF.items())
def test_synonyms_are_not_used(term, synonyms):
    """A reader would ask whether two words mean two things."""
    found = [
        (where, synonym)
        for where, text in sentences()
        for synonym in synonyms
        if re.search(rf"\b{synonym}", " ".join(text.split()), re.IGNORECASE)
    ]

    assert found == [], f"say {term}"


def test_each_meaning_is_one_line_that_ends_without_a_stop():
    assert [term for term, meaning in TERMS.items() if meaning.endswith(".") or len(meaning) > 140] == []
