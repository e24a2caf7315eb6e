"""Finds in the bytes of a request whether it is whole."""

import json

import pytest

from chainbench_agent.web.http_framing import LONGEST_BODY, LONGEST_HEAD, Incoming, refusal

GET = b"GET /status HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b'POST /start HTTP/1.1\r\nHost: a\r\ncontent-length:  7 \r\n\r\n{"a":1}'
CHUNKED = b'POST /start HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n4;x=y\r\n{"a"\r\n3\r\n:1}\r\n0\r\n\r\n'
TRAILERS = CHUNKED[:-2] + b"Late: 1\r\n\r\n"
DECOY = b"POST /start HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"


def arrived(*pieces):
    incoming = Incoming()
    for piece in pieces:
        incoming.add(piece)
    return incoming


@pytest.mark.parametrize("request_", [GET, POST, CHUNKED, TRAILERS, DECOY])
def test_a_request_is_whole_at_its_last_byte(request_):
    """And not before, in whatever pieces it comes."""
    incoming = Incoming()
    for place in range(len(request_)):
        assert not incoming.is_whole, request_[:place]
        incoming.add(request_[place : place + 1])

    assert incoming.is_whole
    assert incoming.data == request_
    assert arrived(request_).is_whole
    assert not arrived(request_[:-1]).is_whole


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /start HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (LONGEST_BODY + 1),
        b"POST /start HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n" + b"x" * (LONGEST_BODY + 1),
        b"POST /start HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n",
    ],
)
def test_what_will_be_refused_is_not_waited_for(request_):
    assert arrived(request_).is_whole


def test_the_longest_body_is_read():
    request_ = b"POST /start HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % LONGEST_BODY

    assert not arrived(request_).is_whole
    assert arrived(request_, b"x" * LONGEST_BODY).is_whole


def test_a_head_without_end():
    assert not arrived(GET + b"x" * LONGEST_HEAD).is_too_long
    assert arrived(GET[:-2], b"x" * LONGEST_HEAD).is_too_long


def test_a_client_that_waits_for_100_continue():
    assert arrived(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n").waits
    assert not arrived(GET).waits


def test_calls_that_act():
    acting = [arrived(f"{method} / HTTP/1.1".encode()).acts for method in ("GET", "HEAD", "POST", "DELETE", "GETS")]

    assert acting == [False, False, True, True, True]


def test_a_refusal_is_a_problem_document():
    head, _, body = refusal(408, "slow", "hurry").partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Request Timeout",
        "status": 408,
        "detail": "slow",
        "remedy": "hurry",
    }
