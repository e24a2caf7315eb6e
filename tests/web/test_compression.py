"""Which answers are compressed, and that they are the same answers."""

import gzip
import zlib

import pytest
from flask import Response

from chainbench_agent.runs.lifecycle import Runs
from chainbench_agent.web.app import create_app
from chainbench_agent.web.compression import WORTH_IT, prefers_gzip

PARTS = [b"# HELP a b\n", b"a 1\n" * WORTH_IT, b"", b"a 2\n"]


@pytest.fixture
def app(collector):
    app = create_app(Runs(collector, "m"), lambda _: (PARTS, "text/plain"))
    app.add_url_rule("/just", "just", lambda: Response("x" * WORTH_IT))
    app.add_url_rule("/short", "short", lambda: Response("x" * (WORTH_IT - 1)))
    app.add_url_rule("/stream", "stream", lambda: Response(part for part in ["x" * WORTH_IT]))
    app.add_url_rule("/tagged", "tagged", lambda: Response("x" * WORTH_IT, headers={"ETag": '"t"'}))
    return app


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("gzip;q=0.001", True),
        ("gzip; q=0.5", True),
        ("*", True),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("identity;q=0.5, gzip;q=0.5", True),
        ("", False),
        ("identity", False),
        ("deflate, br", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("identity, gzip;q=0.5", False),
        ("gzip;q=much", False),
        ("gzipped", False),
    ],
)
def test_what_the_client_prefers(client, header, wanted):
    """As RFC 9110 weighs it; whoever names no weight for the plain bytes takes the fewer."""
    assert prefers_gzip(header) == wanted
    answer = client.get("/metrics", headers={"Accept-Encoding": header})
    assert answer.headers.get("Content-Encoding") == ("gzip" if wanted else None)


def test_the_same_bytes(client):
    """Compressed, in parts, and by HEAD; its length is announced, and a cache keeps the two apart."""
    plain, packed = client.get("/metrics"), client.get("/metrics", headers={"Accept-Encoding": "gzip"})
    head = client.head("/metrics", headers={"Accept-Encoding": "gzip"})

    assert plain.data == gzip.decompress(packed.data) == b"".join(PARTS)
    assert len(packed.data) < len(plain.data) / 10
    for answer in (plain, packed):
        assert answer.content_length == len(answer.data)
        assert set(answer.vary) == {"Accept", "Accept-Encoding"}
    assert (head.content_length, head.data) == (packed.content_length, b"")
    assert zlib.decompressobj(31).decompress(packed.data) == plain.data  # one member: not every client reads more


@pytest.mark.parametrize("path", ["/status", "/openapi.json", "/docs", "/no-such-call"])
def test_every_kind_of_answer(client, path):
    """JSON, HTML and problems as well, where they are long enough."""
    plain, packed = client.get(path), client.get(path, headers={"Accept-Encoding": "gzip"})
    long = len(plain.data) >= WORTH_IT

    assert (packed.headers.get("Content-Encoding") == "gzip") == long
    assert packed.status_code == plain.status_code
    assert (packed.vary, packed.content_type) == (plain.vary, plain.content_type)


def test_what_is_not_compressed(client):
    """A short answer fits into a packet as it is, and a stream is sent as it comes."""
    gzipped = {"Accept-Encoding": "gzip"}

    assert client.get("/just", headers=gzipped).headers["Content-Encoding"] == "gzip"
    for path in ("/short", "/stream"):
        assert "Content-Encoding" not in client.get(path, headers=gzipped).headers


def test_a_strong_tag_does_not_stand_for_other_bytes(client):
    assert client.get("/tagged").headers["ETag"] == '"t"'
    assert client.get("/tagged", headers={"Accept-Encoding": "gzip"}).headers["ETag"] == 'W/"t"'
