"""The evidence's schema is committed, with its history; a version means the same for as long as it is written."""

import json

import written_docs as made

from chainbench_agent.evidence.model import SCHEMA_VERSION


def test_the_schema_keeps_its_rule():
    """Agents of one version never stop answering what they answered once."""
    assert made.against_the_rule() == [], "raise SCHEMA_VERSION"
    assert made.SCHEMA.read_text() == made.schema_text(), made.UPDATE


def test_the_schema_does_not_change_without_a_word():
    """The last row of the history is about the schema as it is."""
    now = (SCHEMA_VERSION, made.digest(made.document()))
    versions = [version for version, _ in made.history()]

    assert made.history()[-1] == now, f"add to the history in docs/evidence.md: | {now[0]} | `{now[1]}` | … | … |"
    assert versions == sorted(versions)
    assert versions[0] == 1


def change(**what):
    schema = json.loads(json.dumps(made.document()))
    schema["properties"]["exec"]["properties"] |= what
    return schema


def without(name):
    schema = change()
    del schema["properties"]["exec"]["properties"][name]
    return schema


def test_what_the_rule_forbids():
    """A metric that goes, one of another type, one that is no longer always there; not one that comes."""
    old = made.document()
    optional = change()
    optional["properties"]["runqlat"]["required"] = []

    assert list(made.breaks(old, old)) == []
    assert list(made.breaks(old, change(new={"type": "integer"}))) == []
    assert list(made.breaks(old, without("forks"))) == ["exec.forks is gone"]
    assert list(made.breaks(old, change(forks={"type": "number"}))) == ["exec.forks was integer"]
    assert list(made.breaks(old, optional)) == ["runqlat.sources may be absent"]


def test_the_digest_is_of_what_programs_read():
    assert made.digest(change(forks={"type": "integer", "description": "Other words."})) == made.digest(made.document())
    assert made.digest(without("forks")) != made.digest(made.document())
