# ruff: noqa: INP001 - a script by itself
"""Exits with 0 if the agent of this container answers; for health checks, which have the agent's environment.

It is not a command of the agent, because it starts every few seconds during a benchmark and must import very little.
"""

import http.client
import os
import socket
import ssl
import sys

PATIENCE_S = 9
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what listens on all addresses answers on these


def main() -> None:
    headers = {"Host": "localhost"}  # the agent accepts this name wherever it listens
    if path := os.environ.get("CHAINBENCH_READ_TOKEN_FILE") or os.environ.get("CHAINBENCH_TOKEN_FILE"):
        with open(path, encoding="ascii") as file:  # noqa: PTH123 - pathlib is a slow import
            headers["Authorization"] = f"Bearer {file.read().strip()}"
    connection = http.client.HTTPConnection("localhost")
    try:
        connection.sock = connected()
        connection.request("GET", "/status", headers=headers)
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        sys.exit(str(error))
    if answer.status != 200:
        sys.exit(f"HTTP status {answer.status}")


def connected() -> socket.socket:
    """Connects to the address that the agent's settings name."""
    host = os.environ.get("CHAINBENCH_HOST") or "127.0.0.1"
    if host.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE_S)
        sock.connect(host.removeprefix("unix:"))
    else:
        port = int(os.environ.get("CHAINBENCH_PORT") or "9090")
        sock = socket.create_connection((ANY.get(host, host), port), PATIENCE_S)
    if not os.environ.get("CHAINBENCH_TLS_CERT"):
        return sock
    # not verified, because the certificate has the names by which other machines call the agent
    return ssl._create_unverified_context().wrap_socket(sock)  # noqa: S323, SLF001


main()
