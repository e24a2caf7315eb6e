"""Finds where a request ends, in its bytes, before any parser sees them; makes the answer to an incomplete request."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any

MEDIA_TYPE = "application/problem+json"
LONGEST_HEAD = 16 * 1024
LONGEST_BODY = 64 * 1024
"""The largest sensible body is under 2 KiB."""

LONGEST_LOGGED = 200

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,15})[ \t]*\r$", re.IGNORECASE | re.MULTILINE)
_CHUNKED = re.compile(rb"^transfer-encoding:[^\r\n]*chunked[ \t]*\r$", re.IGNORECASE | re.MULTILINE)
_CONTINUE = re.compile(rb"^expect:[ \t]*100-continue", re.IGNORECASE | re.MULTILINE)
_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})[^\r\n]*\r\n")


class Incoming:
    """The bytes of a request as they arrive.  Each is looked at once, however small the pieces are.

    In strange cases it may disagree with the parser, because the parser gets these bytes and never more.
    """

    __slots__ = ("_body", "_chunk", "_length", "data", "waits")

    def __init__(self) -> None:
        self.data = bytearray()
        self.waits = False
        """The client waits for 100 Continue before it sends the body."""
        self._body = -1
        self._length: int | None = 0
        self._chunk = 0

    def add(self, piece: bytes) -> None:
        self.data += piece
        if self._body < 0 and (end := self.data.find(_HEAD_END, -len(piece) - len(_HEAD_END))) >= 0:
            head, self._body = self.data[: end + 2], end + len(_HEAD_END)
            length = _LENGTH.search(head)
            self._length = None if _CHUNKED.search(head) else int(length[1]) if length else 0
            self._chunk = self._body
            self.waits = _CONTINUE.search(head) is not None

    @property
    def is_whole(self) -> bool:
        """Whether nothing more has to be read: the request is complete, or will be refused for its length."""
        if self._body < 0:
            return False
        come = len(self.data) - self._body
        if self._length is None:
            return come > LONGEST_BODY or self._chunks_end()
        return self._length > LONGEST_BODY or come >= self._length

    @property
    def is_cut(self) -> bool:
        """Whether reading stopped between its chunks, because they are too long together."""
        return self._length is None and not self._chunks_end()

    @property
    def is_too_long(self) -> bool:
        """Whether its head is too long."""
        return (len(self.data) if self._body < 0 else self._body) > LONGEST_HEAD

    @property
    def acts(self) -> bool:
        """Whether this is a call that changes something."""
        return not self.data.startswith((b"GET ", b"HEAD ", b"OPTIONS "))

    @property
    def asks_for_status(self) -> bool:
        return self.data.startswith((b"GET /status ", b"GET /status?", b"HEAD /status "))

    @property
    def first_line(self) -> str:
        """For the log."""
        return self.data[:LONGEST_LOGGED].partition(b"\r\n")[0].removesuffix(b" HTTP/1.1").decode("latin-1")

    def _chunks_end(self) -> bool:
        while size := _SIZE.match(self.data, self._chunk):
            length = int(size[1], 16)
            if length == 0:
                return self.data.startswith(b"\r\n", size.end()) or self.data.find(_HEAD_END, size.end()) >= 0
            following = size.end() + length + 2
            if following > len(self.data):
                return False
            self._chunk = following
        return self.data.find(b"\r\n", self._chunk) >= 0  # no size: the parser will say so


def document(status: int, detail: str, remedy: str, errors: list[dict[str, str]] | None = None) -> dict[str, Any]:
    """A problem (RFC 9457); `remedy` and `errors` are left out when empty."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **({"remedy": remedy} if remedy else {}),
        **({"errors": errors} if errors else {}),
    }


def refusal(status: int, detail: str, remedy: str) -> bytes:
    """A problem document with the head of its response."""
    problem = document(status, detail, remedy)
    body = json.dumps(problem) + "\n"
    head = f"HTTP/1.1 {status} {problem['title']}\r\nConnection: close\r\nContent-Type: {MEDIA_TYPE}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode("ascii")
