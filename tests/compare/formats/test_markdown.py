def test_faster(rendered):
    text = rendered("markdown")

    assert text.startswith("### Faster: −63.6 % (99 %: −64.4 … −63.0 %)\n\nThe optimized side is 63.6 % faster")
    assert "| blocked: disk | 99.4 | 10.0 | −89.4 | fsync 120 → 1 in every run: −99.2 ms for fewer, " in text
    assert "| **sum** | | | **−89.0** | |" in text


def test_a_label_cannot_break_the_document(rendered):
    """Labels are anybody's words: no table, link or HTML is made of them."""
    text = rendered("markdown", variant="a|b\n\n# <img src=x> [c](d)")

    assert r"a\|b # \<img src=x\> \[c\](d)" in text


def test_every_table_has_as_many_cells_as_columns(rendered):
    """Also with differences and metrics."""
    for text in (rendered("markdown"), rendered("markdown", ended_by="shutdown")):
        widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
        assert widths
        assert set(widths) <= {4, 6}
