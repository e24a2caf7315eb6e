"""A request that is not HTTP, or a version that is not supported, is answered with a problem document."""

import json
import socket
import ssl

import pytest

from chainbench_agent.web.http_framing import LONGEST_HEAD

HOST = b"Host: localhost\r\n"
CHUNKS = b"POST /report HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def asked(address, said):
    """(status, headers, body) of the answer."""
    with socket.create_connection(address, timeout=60) as client:
        client.sendall(said)
        return answer_of(client)


def answer_of(client):
    with client.makefile("rb") as file:
        head, _, body = file.read().partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def get(*headers, target=b"/status", method=b"GET", version=b"HTTP/1.1"):
    return b"%s %s %s\r\n" % (method, target, version) + HOST + b"".join(h + b"\r\n" for h in headers) + b"\r\n"


REFUSED = {
    "a target that is not ASCII": (get(target="/stätus".encode()), 400),
    "a query that is not ASCII": (get(target="/runs?impl=ä".encode()), 400),
    "HTTP/0.9": (b"GET /status\r\n\r\n", 400),
    "no request line": (b"\r\n\r\n", 400),
    "HTTP/2": (get(version=b"HTTP/2.0"), 505),
    "HTTP/2 by prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "no version": (get(version=b"FTP/1"), 400),
    "a method in small letters": (get(method=b"get"), 400),
    "an address that is none": (get(target=b"http://[::1/status"), 400),
    "an expectation": (get(b"Expect: a-miracle"), 417),
    "a length that is none": (get(b"Content-Length: some", method=b"POST"), 400),
    "a negative length": (get(b"Content-Length: -1", method=b"POST"), 400),
    "two lengths": (get(b"Content-Length: 0", b"Content-Length: 0", method=b"POST"), 400),
    "two hosts": (get(HOST.strip()), 400),
    "a header on two lines": (get(b"X: a\r\n b"), 400),
    "a header without a name": (get(b": a"), 400),
    "a name with a space": (get(b"X Y: a"), 400),
    "a zero in a header": (get(b"X: a\0b"), 400),
    "a coding that is not known": (get(b"Transfer-Encoding: br", method=b"POST"), 501),
    "a body without an end": (get(b"Transfer-Encoding: gzip", method=b"POST"), 400),
    "a chunk without a size": (CHUNKS + b"some\r\n{}\r\n0\r\n\r\n", 400),
    "a chunk that is longer": (CHUNKS + b"2\r\n{} \r\n0\r\n\r\n", 400),
    "a trailer that may not be one": (CHUNKS + b"2\r\n{}\r\n0\r\nHost: a\r\n\r\n", 400),
    "more framing than body": (CHUNKS + b"1\r\n \r\n" * 11_000, 413),
    "a head above the limit": (get(b"X: " + b"x" * LONGEST_HEAD), 431),
    "a TLS client": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(parser_agent, kind):
    """With its status, a sentence and a remedy; nothing of it looks like a fault of the agent."""
    said, expected = REFUSED[kind]
    status, headers, body = asked(parser_agent.address, said)
    document = json.loads(body)

    assert (status, document["status"]) == (expected, expected)
    assert headers["content-type"] == "application/problem+json"
    assert headers["content-length"] == str(len(body))
    assert document["detail"]
    assert document["remedy"]
    assert "Traceback" not in parser_agent.log


@pytest.fixture(scope="module")
def parser_agent(tmp_path_factory):
    from daemon import Daemon

    agent = Daemon(tmp_path_factory.mktemp("agent"))
    assert agent.url
    yield agent
    agent.end()


@pytest.mark.parametrize(
    "said",
    [
        get(b"X: " + b"x" * 9000),
        get(b"X: " + b"x" * (LONGEST_HEAD - 200)),
        get(*(b"X%d: 1" % number for number in range(1000))),
        get(target=b"/status?" + b"x" * 9000),
        get(b"Expect: 100-continue"),
        get(target=b"http://localhost/status"),
        get(version=b"HTTP/1.0"),
        b"\r\n" + get(),
    ],
)
def test_what_is_within_the_limits(parser_agent, said):
    """The whole head has one limit, and nothing in it another."""
    status, _, body = asked(parser_agent.address, said)

    assert (status, json.loads(body)["status"]) == (200, "idle")


def test_a_secret_is_not_repeated(parser_agent):
    """The header that cannot be parsed is named; its value is in neither the answer nor the log."""
    _, _, body = asked(parser_agent.address, get(b"Authorization: Bearer s3cr3t\0"))

    assert "AUTHORIZATION" in json.loads(body)["detail"]
    assert b"s3cr3t" not in body
    assert "s3cr3t" not in parser_agent.log


def test_over_tls(daemon, certificate):
    cert, key = certificate
    agent = daemon(tls_cert=cert, tls_key=key)
    context = ssl.create_default_context(cafile=cert)
    plain = socket.create_connection(agent.address, timeout=60)
    with context.wrap_socket(plain, server_hostname="localhost") as client:
        client.sendall(get(b"Expect: a-miracle"))
        status, headers, _ = answer_of(client)

    assert (status, headers["content-type"]) == (417, "application/problem+json")
