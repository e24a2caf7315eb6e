"""The process that sent a request: found by its connection."""

import os
import socket

import pytest
from flask import Flask

from chainbench_agent.web.caller import caller

APP = Flask(__name__)


@pytest.fixture
def asked():
    """`asked(**environ)` → the caller of a request over that connection."""

    def ask(**environ):
        with APP.test_request_context(environ_overrides=environ):
            return caller()

    return ask


def test_a_unix_socket(asked):
    """The kernel names the process that connected."""
    here, there = socket.socketpair()
    with here, there:
        assert asked(**{"gunicorn.socket": here}) == os.getpid()


def test_a_tcp_connection(asked):
    """The process that holds the client's end."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        address, port = client.getsockname()

        assert asked(REMOTE_ADDR=address, REMOTE_PORT=str(port)) == os.getpid()


@pytest.mark.parametrize("connection", [{"REMOTE_ADDR": "192.0.2.1", "REMOTE_PORT": "1"}, {"REMOTE_ADDR": ""}])
def test_another_machine_or_none(asked, connection):
    assert asked(**connection) is None
