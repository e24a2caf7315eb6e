r"""The kernel's bytes as text, and back: names of threads, files and groups, which need not be UTF-8.

A thread's name is cut at 15 bytes, inside a character if that is where they end; a file's name is any bytes at all.
A byte that is no part of a character is written `\xd0`, and so is a backslash that would otherwise begin such a word:
two names that differ stay apart, and what is JSON, or a label of Prometheus, says which bytes they were.
"""

from __future__ import annotations

import os
import re

_LOOKS_WRITTEN = re.compile(rb"\\(?=x[0-9a-f]{2})")
_WRITTEN = re.compile(rb"\\x([0-9a-f]{2})")


def text_of(raw: bytes) -> str:
    """The bytes as text, whatever they are."""
    return _LOOKS_WRITTEN.sub(rb"\\x5c", raw).decode(errors="backslashreplace")


def bytes_of(text: str) -> bytes:
    """The bytes that `text_of` made this of."""
    return _WRITTEN.sub(lambda word: bytes((int(word[1], 16),)), text.encode(errors="surrogatepass"))


def text_of_path(path: str | os.PathLike[str]) -> str:
    """A path as Python has it, as text that anything can print."""
    return text_of(os.fsencode(path))
