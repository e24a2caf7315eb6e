r"""Conversion of the kernel's bytes to text, and back: names of threads, files and cgroups need not be UTF-8.

A thread's name is cut at 15 bytes, possibly inside a character; a file's name may be any bytes.  A byte that is not
part of a character is written as `\xd0`, and a backslash that would otherwise begin such an escape as `\x5c`.  So two
names that differ have different texts, and JSON and the labels of Prometheus show which bytes they were.
"""

from __future__ import annotations

import os
import re

_LOOKS_ESCAPED = re.compile(rb"\\(?=x[0-9a-f]{2})")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def text_of(raw: bytes) -> str:
    """Any bytes as text."""
    return _LOOKS_ESCAPED.sub(rb"\\x5c", raw).decode(errors="backslashreplace")


def bytes_of(text: str) -> bytes:
    """The bytes from which `text_of` made this text."""
    return _ESCAPED.sub(lambda escape: bytes((int(escape[1], 16),)), text.encode(errors="surrogatepass"))


def text_of_path(path: str | os.PathLike[str]) -> str:
    """A path as text that can be printed: without the surrogates that Python uses for bytes that are not UTF-8."""
    return text_of(os.fsencode(path))
