"""The check of words finds what it lists, in each language of the repository, at its line; and nothing in code."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/check_words.py"


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check_words", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def found(check):
    """(line, what was found) in the text of a file of this name."""

    def found(name, text):
        return sorted((finding.line, finding.found) for finding in check.findings(Path(name), text))

    return found


@pytest.mark.parametrize(
    "words",
    [
        *("heeds", "anew", "dearer", "mended", "Beside", "told", "kept", "alone", "shall", "wants", "comes back"),
        *("is none of ours", "of files none", "keeps the agent from starting", "the slate"),
    ],
)
def test_each_word_is_found(found, words):
    assert len(found("page.md", f"It is said that {words} here.\n")) == 1


@pytest.mark.parametrize("word", ["Of", "Whose", "Who", "What", "Those"])
def test_each_beginning_is_found(found, word):
    """At the beginning of a text, a sentence, a paragraph, an item and a cell; in bold as well."""
    text = f"{word} a.\n{word} b! {word} c.\n\n{word} d\n\n- **{word}** e\n\n| one | {word} f |\n"

    assert [line for line, _ in found("page.md", text)] == [1, 2, 2, 4, 6, 8]


@pytest.mark.parametrize(
    "text",
    [
        "There is none. The kernel has none, and neither has `kept`.",
        "`--max-kept-label-sets`, kept_runs, keptness and the re-kept",
        "What does it cost? Who may call?",
        "# What it takes\n\nText.",
        "| What | Who |\n| --- | --- |\n| a | b |",
        "Text.\n\n    kept beside\n\n```\ntold\n```\n",
        "See [the page](anew.md#kept).",
        "before\n<!-- metrics:begin -->\nkept\n<!-- metrics:end -->\n",
    ],
)
def test_what_is_allowed(found, text):
    """Code, names, links, headings, questions, and what is written from the code and checked there."""
    assert found("page.md", text) == []


def test_python(found):
    """Comments, docstrings, and strings that people read; names are not prose."""
    text = '''"""A page.

What it does.
"""
kept = "kept"  # told
# it
# shall
x = 1
"""Of an attribute."""
raise ValueError(f"the run {kept} is kept beside it")
'''
    assert found("a.py", text) == [(3, "What"), (5, "told"), (7, "shall"), (9, "Of"), (10, "beside"), (10, "kept")]


def test_strings_of_tests_are_data(found):
    assert found("tests/test_a.py", 'x = "it is kept beside"  # told\n') == [(1, "told")]


def test_c(found):
    """Comments of both kinds; a string may look like one."""
    text = '/*\n * Says it.\n * What is kept\n */\nint kept; // told\nchar *s = "/* anew */";\n'

    assert found("a.c", text) == [(3, "What"), (3, "kept"), (5, "told")]


@pytest.mark.parametrize("name", ["Makefile", "a.yaml", "a.service", "setup", "Dockerfile", "a.toml"])
def test_comments_after_a_hash(found, name):
    """Comments below each other are one text, so that a sentence may go on in the next."""
    assert found(name, "kept: 1 # told\n# It is so.\n# What not.\n#\n# The same\n# Who\n") == [(1, "told"), (3, "What")]


@pytest.mark.parametrize(("text", "status"), [("It is stored.\n", 0), ("It is kept.\n", 1)])
def test_the_command_fails_if_it_finds_something(tmp_path, text, status):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "page.md").write_text(text)
    done = subprocess.run([SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.count("page.md:1: 'kept', say: stored")) == (status, status)
