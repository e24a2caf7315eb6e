"""HTTP over a unix socket, as a transport adapter of requests."""

from __future__ import annotations

import socket
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import NewConnectionError

HOST = "localhost"
"""In the Host header; the agent does not check the name in it where a unix socket is used."""


class UnixSocketAdapter(HTTPAdapter):
    """Sends every request of a session to the socket at `path`, whichever host its URL names."""

    def __init__(self, path: str) -> None:
        self._pool = _Pool(path)
        super().__init__()

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        """One pool for all requests; it speaks neither TLS nor to proxies."""
        return self._pool

    def close(self) -> None:
        self._pool.close()
        super().close()


class _Connection(HTTPConnection):
    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(HOST, **options)
        self._path = path

    def _new_conn(self) -> socket.socket:
        """As urllib3.contrib.socks does, which is urllib3's own example of another kind of connection."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self._path)
        except OSError as error:
            sock.close()
            raise NewConnectionError(self, f"cannot connect: {error}") from error
        return sock


class _Pool(HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__(HOST)
        self._path = path

    def _new_conn(self) -> _Connection:
        return _Connection(self._path, timeout=self.timeout.connect_timeout)
