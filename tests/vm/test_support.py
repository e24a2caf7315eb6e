"""The support table shows what was recorded, also where kernels differ."""

from support import DOCUMENT, UPDATE, by_kind, recorded, render

SWITCH = {"sources": "raw_tracepoint:sched_switch"}
SWAP_OLD, SWAP_NEW = {"sources": "kprobe:swap_readpage"}, {"sources": "kprobe:swap_read_folio"}
NONE, NO_DRIVER = {"unavailable": "no such function"}, {"unavailable": "no driver"}


def rows(columns):
    """The cells of the table's lines, without its head."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in render(columns).splitlines() if "|" in line][
        2:
    ]


def test_the_document_is_up_to_date():
    assert DOCUMENT.read_text() == render(recorded()), UPDATE


def test_metrics_that_are_alike_everywhere_share_a_line():
    """Only metrics of one module."""
    columns = {"5.10": {"cpu": {"a": SWITCH, "b": SWITCH}, "exec": {"c": SWITCH}}}

    assert rows(columns | {"6.1": columns["5.10"]}) == [
        ["cpu", "`a`, `b`", "raw_tracepoint `sched_switch`", "yes", "yes"],
        ["exec", "`c`", "raw_tracepoint `sched_switch`", "yes", "yes"],
    ]


def test_other_sources_have_lines_of_their_own():
    """Each kernel has a mark at its sources, or a note with the reason why it has none."""
    columns = {"5.10": {"mem": {"in": SWAP_OLD}}, "6.12": {"mem": {"in": SWAP_NEW}}, "6.18": {"mem": {"in": NONE}}}

    assert rows(columns) == [
        ["mem", "`in`", "kprobe `swap_readpage`", "yes", "", "[^1]"],
        ["", "", "kprobe `swap_read_folio`", "", "yes", ""],
    ]
    assert "\n[^1]: no such function\n" in render(columns)


def test_a_reason_is_noted_once():
    columns = {"5.10": {"cpu": {"a": NO_DRIVER}}, "6.1": {"cpu": {"a": NO_DRIVER, "b": NONE}}}

    assert rows(columns) == [["cpu", "`a`", "", "[^1]", "[^1]"], ["cpu", "`b`", "", "", "[^2]"]]
    assert render(columns).count("no driver") == 1


def test_sources_are_grouped_by_kind():
    assert by_kind("raw_tracepoint:a, fexit:c, raw_tracepoint:b") == "raw_tracepoint `a` `b`; fexit `c`"
