# ruff: noqa: INP001 - a script by itself
"""Exits with 0 when the agent of this container answers: for health checks, which see the agent's environment.

Not a command of the agent: it starts every few seconds, beside a benchmark, so it imports hardly anything.
"""

import os
import ssl
import sys
import urllib.request

PATIENCE_S = 9


def main() -> None:
    port = os.environ.get("CHAINBENCH_PORT") or "9090"
    secure = bool(os.environ.get("CHAINBENCH_TLS_CERT"))
    asked = urllib.request.Request(f"http{'s' if secure else ''}://127.0.0.1:{port}/status")  # noqa: S310 - http
    if path := os.environ.get("CHAINBENCH_READ_TOKEN_FILE") or os.environ.get("CHAINBENCH_TOKEN_FILE"):
        with open(path, encoding="ascii") as file:  # noqa: PTH123 - pathlib is a slow import
            asked.add_header("Authorization", f"Bearer {file.read().strip()}")
    # the certificate has other names than the one of the loopback
    context = ssl._create_unverified_context() if secure else None  # noqa: S323, SLF001
    try:
        urllib.request.urlopen(asked, timeout=PATIENCE_S, context=context)  # noqa: S310 - made above
    except OSError as error:
        sys.exit(str(error))


main()
