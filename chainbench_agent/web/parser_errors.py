"""Turns errors of the HTTP parser into problem documents; gunicorn would answer with an HTML page."""

from __future__ import annotations

from gunicorn.http import errors

from chainbench_agent.web.http_framing import LONGEST_HEAD

Problem = tuple[int, str, str]
"""Status, detail and remedy."""

LONGEST_NAME = 60

EXPECT_REMEDY = "send Expect: 100-continue, or no such header"
VERSION_REMEDY = "send HTTP/1.1 or HTTP/1.0"
HEADER_REMEDY = "send each header as Name: value, once, on one line"
CHUNK_REMEDY = "send the body with a Content-Length, or in chunks as RFC 9112 defines them"
TARGET_REMEDY = "send METHOD PATH HTTP/1.1, and percent-encode what is not printable ASCII in the path"

_PROBLEMS: tuple[tuple[type[Exception], Problem], ...] = (
    (errors.InvalidRequestLine, (400, "the request line cannot be parsed", TARGET_REMEDY)),
    (errors.InvalidRequestMethod, (400, "the method is not an HTTP method", TARGET_REMEDY)),
    (errors.LimitRequestLine, (431, f"the head is longer than {LONGEST_HEAD} bytes", "send fewer headers")),
    (errors.LimitRequestHeaders, (431, f"the head is longer than {LONGEST_HEAD} bytes", "send fewer headers")),
    (errors.ExpectationFailed, (417, "the Expect header has an unknown value", EXPECT_REMEDY)),
    (errors.UnsupportedTransferCoding, (501, "the transfer coding is not supported", CHUNK_REMEDY)),
    (errors.ObsoleteFolding, (400, "a header continues on a second line", HEADER_REMEDY)),
    (errors.InvalidSchemeHeaders, (400, "two headers contradict each other", HEADER_REMEDY)),
    (errors.InvalidChunkSize, (400, "a chunk of the body has no size", CHUNK_REMEDY)),
    (errors.ChunkMissingTerminator, (400, "a chunk of the body does not end where its size says", CHUNK_REMEDY)),
    (errors.InvalidChunkExtension, (400, "the extension of a chunk cannot be parsed", CHUNK_REMEDY)),
    (errors.NoMoreData, (400, "the request ends too early", CHUNK_REMEDY)),
    (errors.ParseException, (400, "the request cannot be parsed", TARGET_REMEDY)),
)

REFUSED = (errors.ParseException, errors.NoMoreData)


def explained(error: Exception) -> Problem:
    """The problem for an error of the parser: an `errors.ParseException` or `NoMoreData`."""
    if isinstance(error, errors.InvalidHTTPVersion):
        status = 505 if isinstance(error.version, tuple) else 400
        return status, "the version of HTTP is not supported", VERSION_REMEDY
    if isinstance(error, errors.InvalidHeader | errors.InvalidHeaderName):
        name = str(error.hdr).partition(":")[0][:LONGEST_NAME]  # its value may be a secret
        return 400, f"the header {name!r} cannot be parsed, or comes twice", HEADER_REMEDY
    return next(problem for kind, problem in _PROBLEMS if isinstance(error, kind))
