"""Text from a client cannot look like a log entry of its own."""

import logging

import pytest

from chainbench_agent.logs.entries import EntryFormatter

FORGED = "2026-01-01 00:00:00,000 INFO    run x started"


def entry(message, **fields):
    return EntryFormatter("%(asctime)s %(levelname)-7s %(message)s").format(
        logging.makeLogRecord({"msg": message, **fields})
    )


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"])
def test_a_second_line_is_indented(end):
    """Whatever character ends the first line."""
    _, second = entry(f"a{end}{FORGED}").split("\n")

    assert second == f"    {FORGED}"


def test_a_traceback_stays_readable():
    with pytest.raises(KeyError) as caught:
        {}[f"x\n{FORGED}"]
    text = entry("failed", exc_info=(caught.type, caught.value, caught.tb))
    first, *others = text.splitlines()

    assert first.endswith("failed")
    assert others[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in others)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[31m", "\\x1b[31m"), ("a\tb", "a\\tb"), ("\u202eb", "\\u202eb"), ("\0", "\\x00"), ("Größe", "Größe")],
)
def test_characters_that_do_not_print_are_escaped(text, shown):
    assert entry(text).endswith(f" {shown}")
