"""Decides who may call: by token, by the credentials of a unix socket, and never a browser for a page of another site.

docs/threat-model.md has the reasons.
"""

from __future__ import annotations

import grp
import hmac
import os
import re
import socket
import stat
import struct
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from flask import Flask, Response, request

from chainbench_agent.errors import InputError
from chainbench_agent.settings import Settings
from chainbench_agent.web.problems import JSON_REMEDY, problem

LOOKS = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that change nothing, which the read token allows."""

_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]{16,4096}=*")  # what RFC 6750 can carry, and too long to guess
_CREDENTIALS = struct.Struct("3i")
_SO_PEERGROUPS = getattr(socket, "SO_PEERGROUPS", 59)  # Linux 4.13; not in Python's module
_MOST_GROUPS = 256  # what Python has room for; of a user in more groups only the first is known


@dataclass(frozen=True, slots=True)
class Credentials:
    """The process at the other end of a unix socket, when it connected.  `pid` 0: it is in another namespace."""

    pid: int
    uid: int
    groups: frozenset[int]


@dataclass(frozen=True, slots=True)
class Access:
    """The credentials that a client needs.  `names`: allowed in a Host header, besides addresses and localhost."""

    token: bytes = b""
    read_token: bytes = b""
    names: Collection[str] = ()
    group: int | None = None
    """The group whose members may use the unix socket, in addition to root and the agent's user."""

    def install(self, app: Flask) -> None:
        app.before_request(self.refuse)

    def refuse(self) -> Response | None:
        """The problem that refuses the request; None if it is allowed."""
        return self._of_peer() or self._of_token() or self._of_page() or _of_content()

    def _of_peer(self) -> Response | None:
        peer = credentials(request.environ.get("gunicorn.socket"))
        if peer is None or peer.uid in {0, os.geteuid()} or self.group in peer.groups:
            return None
        return problem(
            403,
            f"user {peer.uid} may not use this socket",
            "use root, the agent's user, or a member of --socket-group",
        )

    def _of_token(self) -> Response | None:
        if not self.token:
            return None
        given = _bearer()
        acts, reads = (hmac.compare_digest(given, token) for token in (self.token, self.read_token))
        if acts or (reads and self.read_token and request.method in LOOKS):
            return None
        if reads and self.read_token:
            return problem(403, f"this token is for reading, not for {request.method}", "use the token of --token-file")
        said = "the token is not one of this agent's" if given else "a token is required"
        answer = problem(401, said, "send the token of the agent's --token-file as Authorization: Bearer …")
        answer.headers["WWW-Authenticate"] = 'Bearer realm="chainbench-agent"'
        return answer

    def _of_page(self) -> Response | None:
        """A browser sends what any page asks for, from this machine; but its headers say for which page."""
        host = request.host
        if not self.token and not self._is_ours(host):
            remedy = "use the agent's address, or start the agent with --allowed-hosts"
            return problem(421, "the Host header does not name this agent", remedy)
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
        navigates = request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"
        foreign = site not in {"none", "same-origin"} and not navigates
        if foreign or (origin is not None and _netloc(origin) != host):
            return problem(403, "the request comes from a page of another site", "call the agent from a program")
        return None

    def _is_ours(self, host: str) -> bool:
        """An address always means this machine; a name can be made to mean another (DNS rebinding)."""
        sock = request.environ.get("gunicorn.socket")
        if sock is not None and sock.family == socket.AF_UNIX:
            return True
        name = _hostname(host)
        if name == "localhost" or name.endswith(".localhost") or name in self.names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True


OPEN = Access()
"""No token, and no names."""


def access_for(settings: Settings) -> Access:
    """The access that the settings ask for.  InputError if a token file holds no token, or others can read it."""
    if settings.read_token_file and not settings.token_file:
        raise InputError("read_token_file", "requires a --token-file as well: without it no call needs a token")
    token = read_token("token_file", settings.token_file) if settings.token_file else b""
    reading = read_token("read_token_file", settings.read_token_file) if settings.read_token_file else b""
    if token and token == reading:
        raise InputError("read_token_file", "has the same token as --token-file, which is valid for every call")
    names = {settings.host.lower(), socket.gethostname().lower(), *map(str.lower, settings.allowed_hosts)}
    group = group_id(settings.socket_group) if settings.socket_group else None
    return Access(token, reading, frozenset(names), group)


def group_id(name: str) -> int:
    """A group by its name or number."""
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise InputError("socket_group", f"there is no group {name}; make it with: groupadd --system {name}") from None


def credentials(sock: socket.socket | None) -> Credentials | None:
    """The process that connected to a unix socket; None for any other socket."""
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    groups = b""
    with suppress(OSError):
        groups = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _MOST_GROUPS)
    return Credentials(pid, uid, frozenset({gid, *struct.unpack(f"={len(groups) // 4}I", groups)}))


def read_token(field: str, path: Path) -> bytes:
    """The token in a file.  InputError says what is wrong with the file, and never quotes it."""
    check_secret(field, path)
    text = path.read_bytes().strip()
    if not _TOKEN.fullmatch(text):
        remedy = f"make one with: (umask 077; openssl rand -hex 32 > {path})"
        raise InputError(field, f"{path} has no token of 16 or more letters, digits and -._~+/; {remedy}")
    return text


def check_secret(field: str, path: Path) -> None:
    """InputError if the file cannot be read, or every user can read or write it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise InputError(field, f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise InputError(field, f"{path} is not a file")
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise InputError(field, f"every user of this machine can read or write {path}; first: chmod o-rw {path}")


def _bearer() -> bytes:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip().encode() if kind.lower() == "bearer" else b""


def _of_content() -> Response | None:
    """Refuse a body that is not JSON: a page can make a browser post a form or text to any address, but not JSON.

    A call without a body is allowed, whatever type it declares (`curl -d ''` declares a form).
    """
    if request.method in LOOKS or request.is_json:
        return None
    if request.content_length or "Transfer-Encoding" in request.headers:
        return problem(415, "the body is not declared as JSON", JSON_REMEDY)
    return None


def _netloc(origin: str) -> str:
    with suppress(ValueError):
        return urlsplit(origin).netloc
    return ""


def _hostname(host: str) -> str:
    with suppress(ValueError):
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    return ""
