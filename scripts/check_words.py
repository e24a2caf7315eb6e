#!/usr/bin/env python3
"""Finds words and sentence beginnings that make readers read twice, in comments, docstrings, messages and pages.

docs/glossary.md has the words to use instead.  Without arguments, all files that git knows are checked; with paths,
those in them.  Prints `path:line: found, say …`, and fails if it found anything.

    scripts/check_words.py                      # `make lint` runs this
    scripts/check_words.py probes tests/web     # only there
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

EXEMPT = frozenset({"LICENSE", "scripts/check_words.py", "tests/scripts/test_check_words.py"})
"""Files whose text is not ours, or which have the words as data."""

INSTEAD = {
    r"heed(?:s|ed|ing)?": "handle, respect, use",
    r"anew": "again",
    r"dear(?:er|est|ly)?": "expensive",
    r"mend(?:s|ed|ing)?": "fix, troubleshoot",
    r"beside": "next to, with",
    r"told": "emitted, named, known by",
    r"kept": "stored, remembered, cached, saved",
    r"alone": "only",
    r"shall": "must, should",
    r"(?<!you )wants?": "requires",
    r"(?:come|comes|came|coming) back": "returns",
    r"(?<!there )(?:is|are|was|were|be) (?-i:none)": "is not, is no",
    r"of \w+ none": "no …",
    r"keeps? (?:\S+ ){1,4}from \w+ing": "stops … from",
    r"slates?": "active-run record",
}
"""Pattern of a word → what to say."""

BEGINNINGS = ("Of", "Whose", "Who", "What", "Those")
"""No sentence begins with these, as its subject then comes last.  Questions and headings may."""

ALLOWED = (
    "let alone",
    "not told apart",  # a reason in the ledger: stored evidence has it
    "well-kept",
)
"""Phrases in which a word of INSTEAD is what the field says."""

_WORD = re.compile(rf"(?<![\w-])(?:{'|'.join(f'({word})' for word in INSTEAD)})(?![\w-])", re.IGNORECASE)
_BEGINNING = re.compile(
    rf"(?:\A|[.!?][\"')*]*\s+|\n[ \t]*\n|\n[ \t]*[-*+] |\| )\s*\**((?:{'|'.join(BEGINNINGS)})\b(?![^.!?|]*\?))"
)
_ALLOWED = re.compile("|".join(re.escape(phrase).replace(r"\ ", r"\s+") for phrase in ALLOWED), re.IGNORECASE)


class Text(NamedTuple):
    """Some prose of a file, and the line that it begins in."""

    line: int
    prose: str


class Finding(NamedTuple):
    path: Path
    line: int
    found: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.found!r}, say: {self.instead}"


def findings(path: Path, text: str) -> Iterator[Finding]:
    """All that is found in a file's text; `path` says which language it is in."""
    for block in _texts(path)(text):
        prose = _without_names(block.prose)
        for pattern in (_WORD, _BEGINNING):
            for match in pattern.finditer(prose):
                group = match.lastindex or 0
                instead = "the subject first" if pattern is _BEGINNING else list(INSTEAD.values())[group - 1]
                line = block.line + prose.count("\n", 0, match.start(group))
                yield Finding(path, line, " ".join(match[group].split()), instead)


def _without_names(prose: str) -> str:
    """Blanks what is not read as words: code spans, and the phrases that are allowed."""
    return _ALLOWED.sub(_blank, re.sub(r"`[^`]*`", _blank, prose))


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", "_", match.group())


def _texts(path: Path) -> Callable[[str], Iterator[Text]]:
    match path.suffix:
        case ".py" if "tests" in path.parts:
            return python_comments
        case ".py":
            return python_prose
        case ".c" | ".h":
            return c_comments
        case ".md":
            return markdown
        case ".json" | ".svg" | ".txt" | ".html":
            return lambda _: iter(())
        case _:
            return hash_comments


def python_comments(text: str) -> Iterator[Text]:
    """Comments, those on lines of their own together; and docstrings, also those of attributes."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    yield from _joined((one.start[0], one.string.lstrip("#! "), one.line.lstrip().startswith("#")) for one in comments)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield Text(node.lineno, node.value.value)


def python_prose(text: str) -> Iterator[Text]:
    """Comments, docstrings, and every other string of three words or more: help, errors, remedies."""
    yield from python_comments(text)
    tree = ast.parse(text)
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or node in docstrings:
            continue
        if len(re.findall(r"[a-z]+(?= )", node.value)) > 1:
            # A string continues a sentence more often than it begins one: only words are looked for.
            yield Text(node.lineno, f"_ {node.value}")


def c_comments(text: str) -> Iterator[Text]:
    for match in re.finditer(r'"(?:\\.|[^"\\\n])*"|/\*(.*?)\*/|//([^\n]*)', text, re.DOTALL):
        if (comment := match[1] or match[2]) is not None:
            lines = (re.sub(r"^\s*\* ?", "", line) for line in comment.split("\n"))
            yield Text(1 + text.count("\n", 0, match.start()), "\n".join(lines).strip(" "))


def hash_comments(text: str) -> Iterator[Text]:
    """The comments of shell, make, TOML, YAML, units and Dockerfiles."""
    found = [
        (number, match)
        for number, line in enumerate(text.splitlines(), 1)
        if (match := re.search(r"(?:^|\s)#+(?: (.*))?$", line))
    ]
    yield from _joined((number, match[1] or "", not match.string[: match.start()].strip()) for number, match in found)


def _joined(comments: Iterator[tuple[int, str, bool]]) -> Iterator[Text]:
    """(line, comment, whether it has its line for itself) → texts; those in lines below each other are one."""
    numbered = enumerate(comments)
    for _, group in groupby(numbered, lambda one: (one[1][0] - one[0], True) if one[1][2] else (one[1][0], False)):
        lines = [comment for _, comment in group]
        yield Text(lines[0][0], "\n".join(comment for _, comment, _ in lines))


def markdown(text: str) -> Iterator[Text]:
    """A page without its code, its headings' beginnings, and what `make docs` writes from the code."""
    for pattern, flags in (
        (r"<!-- (\w+):begin -->.*?<!-- \1:end -->", re.DOTALL),
        (r"^```.*?^```", re.DOTALL | re.MULTILINE),
        (r"(?<=\n\n)(?:(?:    .*)?\n)+", 0),
        (r"^\|.*\n(?=\|[ :-]+\|)", re.MULTILINE),
        (r"\]\([^)\s]*\)", 0),
        (r"^#+ +\w+", re.MULTILINE),
    ):
        text = re.sub(pattern, _blank, text, flags=flags)
    yield Text(1, text)


def files(paths: list[str]) -> list[Path]:
    """The files in `paths`, or all that git knows."""
    listed = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "--", *paths]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.splitlines()
    return [Path(name) for name in names if name not in EXEMPT and Path(name).is_file()]


def main(arguments: list[str]) -> int:
    found = [finding for path in files(arguments) for finding in sorted(findings(path, path.read_text()))]
    sys.stdout.writelines(f"{finding}\n" for finding in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
