"""Joins the C files of a BPF unit into one text: each file once, after those that it includes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_INCLUDE = re.compile(r'^#include "(.+)".*\n', re.MULTILINE)
_ONCE = re.compile(r"^#pragma once\n", re.MULTILINE)


def includes(text: str) -> tuple[str, ...]:
    """The files that a C text includes by `#include "NAME"`, in order."""
    return tuple(_INCLUDE.findall(text))


def joined(name: str, text_of: Callable[[str], str]) -> str:
    """The file `name` with all that it includes, as one text: BCC finds no programs in a file that is included.

    Every file begins with its includes, so a file that is included comes whole before the file that includes it.
    """
    return "\n".join(f"// ==== {file}\n{text}" for file, text in _in_order(name, text_of, set()))


def _in_order(name: str, text_of: Callable[[str], str], seen: set[str]) -> Iterator[tuple[str, str]]:
    seen.add(name)
    text = text_of(name)
    for included in includes(text):
        if included not in seen:
            yield from _in_order(included, text_of, seen)
    yield name, re.sub(r"\n{3,}", "\n\n", _ONCE.sub("", _INCLUDE.sub("", text)))
