"""Notifies the service manager (sd_notify(3)): ready, alive, reloading, stopping.  Does nothing without a manager.

gunicorn speaks the protocol too, and would send READY for a master whose worker still compiles.  Therefore the
variables that name the manager's socket are removed from the environment, where gunicorn looks for them.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress

BEATS = 6
"""Watchdog messages per watchdog interval: a starved machine may skip some of them."""


class SystemdNotify:
    """The service manager that started the agent, if one did."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        self._patience_s = int(environment.pop("WATCHDOG_USEC", None) or 0) / 1e6
        environment.pop("WATCHDOG_PID", None)  # names the master; the worker notifies for both

    @property
    def listens(self) -> bool:
        return bool(self._address)

    def notify(self, *assignments: str) -> None:
        """Send assignments such as `READY=1`.  If the manager cannot be reached, the agent goes on."""
        if self._address:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, suppress(OSError):
                channel.connect(self._address)
                channel.sendall("\n".join(assignments).encode())

    def watch(self, healthy: Callable[[], bool]) -> None:
        """Send watchdog messages in a thread, as long as `healthy` returns true."""
        if self._address and self._patience_s:
            threading.Thread(target=self._watch, args=(healthy,), daemon=True).start()

    def _watch(self, healthy: Callable[[], bool]) -> None:
        while True:
            if healthy():
                self.notify("WATCHDOG=1")
            time.sleep(self._patience_s / BEATS)
