"""Sockets and certificates that the agent may listen with, and those that it refuses."""

import os
import stat

import pytest

from chainbench_agent.errors import InputError
from chainbench_agent.server.listener import listen, tls_for


def test_a_certificate_that_cannot_be_used_is_refused(tmp_path, certificate):
    cert, key = certificate
    broken = tmp_path / "broken"
    broken.write_text("no PEM")
    broken.chmod(0o600)
    shown = tmp_path / "shown"
    shown.write_bytes(key.read_bytes())
    shown.chmod(0o644)

    for pair, says in (
        ((cert, None), "tls_key: is missing"),
        ((None, key), "tls_cert: is missing"),
        ((cert, tmp_path / "none"), "cannot read .*none: No such file"),
        ((tmp_path / "none", key), "No such file"),
        ((cert, broken), "a certificate and its key"),
        ((broken, key), "a certificate and its key"),
        ((cert, shown), f"chmod o-rw {shown}"),
    ):
        with pytest.raises(InputError, match=says):
            tls_for(*pair)
    assert tls_for(None, None) is None


@pytest.fixture
def no_chown(monkeypatch):
    """A process may not change owners, like the service because of its filter of system calls."""

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)


@pytest.mark.usefixtures("no_chown")
def test_a_socket_of_the_own_group_needs_no_change_of_its_owner(tmp_path):
    path = tmp_path / "s"
    with listen(f"unix:{path}", 0, group=os.getegid()):
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (0o660, os.getegid())


@pytest.mark.usefixtures("no_chown")
def test_a_group_that_may_not_be_given_is_refused_with_a_remedy(tmp_path):
    """No socket remains that the next agent would find in use."""
    path = tmp_path / "s"
    with pytest.raises(InputError, match=r"socket_group: the agent may not give .*Group="):
        listen(f"unix:{path}", 0, group=os.getegid() + 1)
    assert not path.exists()


def test_the_socket_of_an_ended_agent_is_replaced(tmp_path):
    """A socket that a process listens on is not replaced, nor is any other file."""
    path = tmp_path / "s"
    listen(f"unix:{path}", 0).close()
    assert path.is_socket()

    with listen(f"unix:{path}", 0), pytest.raises(InputError, match=r"host: cannot listen on .*in use; choose"):
        listen(f"unix:{path}", 0)
    path.unlink()
    path.write_text("precious")
    with pytest.raises(InputError, match="in use"):
        listen(f"unix:{path}", 0)
    assert path.read_text() == "precious"
