import pytest

from chainbench_agent.compare.formats import FORMATS


def test_every_format_is_found_by_its_file():
    names = {"bmf", "chainbench", "csv", "gha-benchmark", "github", "json", "junit", "markdown", "text"}

    assert set(FORMATS) == names
    assert all(one.help and "/" in one.media_type for one in FORMATS.values())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "case", [{}, {"after": 100.0}, {"after": 200.0}, {"ended_by": "shutdown"}, {"order": "blocks"}]
)
def test_every_format_shows_every_verdict(rendered, name, case):
    """Faster, inconclusive, slower, not comparable, with a note: nothing fails, and the text is complete."""
    text = rendered(name, **case)

    assert text.endswith("\n")
    assert "None" not in text
    assert "nan" not in text
