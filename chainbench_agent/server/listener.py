"""Opens the socket that clients connect to: TCP or unix, with or without TLS."""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from chainbench_agent.errors import InputError
from chainbench_agent.settings import Settings
from chainbench_agent.web.access import Access, access_for, check_secret

UNIX = "unix:"
BACKLOG = 128
ANSWER_BYTES = 1 << 20
"""The requested send buffer; the kernel grants at most net.core.wmem_max.  An evidence has 50 KB."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listener:
    """Where the agent listens, who may call, and with which certificate.

    `place`: host, port and the group of a unix socket.  `protected`: other machines may connect.
    """

    place: tuple[str, int, str]
    access: Access
    tls: ssl.SSLContext | None
    protected: bool

    def open(self) -> socket.socket:
        """A listening socket.  InputError if the agent cannot listen there."""
        host, port, _ = self.place
        listener = listen(host, port, protected=self.protected, group=self.access.group)
        if self.access.token and is_overheard(listener, tls=self.tls is not None):
            log.warning("tokens cross the network in the clear; give the agent --tls-cert and --tls-key")
        return listener


def listener_for(settings: Settings) -> Listener:
    """The listener that the settings ask for.  InputError if a token or a certificate cannot be used."""
    access, tls = access_for(settings), tls_for(settings.tls_cert, settings.tls_key)
    place = settings.host, settings.port, settings.socket_group
    return Listener(place, access, tls, protected=bool(access.token) or settings.insecure)


def listen(host: str, port: int, *, protected: bool = False, group: int | None = None) -> socket.socket:
    """A listening socket.  gunicorn's own would retry for five seconds before it reports an error.

    `host` is an address, a name, or `unix:/path`.  InputError if the agent cannot listen on it, or if other machines
    could connect and the agent is not `protected`.
    """
    if host.startswith(UNIX):
        listener = _unix(Path(host.removeprefix(UNIX)), group)
    else:
        listener = _tcp(host, port, protected=protected)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ANSWER_BYTES)  # inherited by each connection
    return listener


def _tcp(host: str, port: int, *, protected: bool) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if not protected and not ip_address(str(address[0]).partition("%")[0]).is_loopback:
            raise InputError(
                "host",
                f"{host} can be reached from other machines, and nothing protects the agent there; give it a "
                "--token-file (and --tls-cert, --tls-key), or set --insecure",
            )
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:  # not every text can be a host name
        why = (getattr(error, "strerror", None) or str(error)).partition(" (")[0]  # the address is named below
        reason = f"cannot listen on {host}:{port}: {why}; choose another with --host and --port"
        field = "port" if getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES) else "host"
        raise InputError(field, reason) from None
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited as well
    return listener


def _unix(path: Path, group: int | None) -> socket.socket:
    """A unix socket for root, the agent's user and `group`.  The socket of an agent that died is replaced."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        if path.is_socket() and not _answers(path):
            path.unlink()
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        if group is not None:
            _give_to(group, path)
        listener.listen(BACKLOG)
    except InputError:
        listener.close()
        raise
    except OSError as error:
        listener.close()
        reason = f"cannot listen on {UNIX}{path}: {error.strerror or error}; choose another path"
        raise InputError("host", reason) from None
    return listener


def _give_to(group: int, path: Path) -> None:
    """Let the group use the socket.  A service that runs with that group need not change it, and may not."""
    if path.stat().st_gid != group:
        try:
            os.chown(path, -1, group)
        except PermissionError:
            path.unlink()
            remedy = "run the agent with that group (systemctl edit chainbench-agent: Group=)"
            raise InputError("socket_group", f"the agent may not give its socket to group {group}; {remedy}") from None
    path.chmod(0o660)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as other, suppress(ConnectionRefusedError):
        other.connect(str(path))
        return True
    return False


def is_overheard(listener: socket.socket, *, tls: bool) -> bool:
    """Whether requests cross a network unencrypted."""
    if tls or listener.family == socket.AF_UNIX:
        return False
    return not ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def url(listener: socket.socket, *, tls: bool) -> str:
    name: Any = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"{UNIX}{name}"
    host, port, *_ = name
    return f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"


def tls_for(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """A context for TLS 1.2 and later, or None without certificate and key.  InputError if the files cannot be used."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise InputError("tls_cert" if key else "tls_key", "is missing: TLS needs both the certificate and its key")
    check_secret("tls_key", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, password=lambda: b"")
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        reason = f"{cert} and {key} are not a certificate and its key in PEM without a password: {why}"
        raise InputError("tls_cert", reason) from None
    return context
