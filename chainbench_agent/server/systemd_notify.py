"""What the service manager is told: ready, alive, reloading, stopping.  Silent where none listens.

The protocol is sd_notify(3).  Gunicorn speaks it too, and would say READY for a master whose worker still compiles: so
the variables that name the manager's socket are taken out of the environment, where it looks for them.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress

BEATS = 6
"""How often within the manager's patience it hears that we live: a starved machine may lose some."""


class SystemdNotify:
    """The manager that started us, if one did."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        self._patience_s = int(environment.pop("WATCHDOG_USEC", None) or 0) / 1e6
        environment.pop("WATCHDOG_PID", None)  # the master's; its worker speaks for both

    @property
    def listens(self) -> bool:
        return bool(self._address)

    def notify(self, *assignments: str) -> None:
        """Send `READY=1` and the like.  A manager that cannot be reached is no reason to stop."""
        if self._address:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, suppress(OSError):
                channel.connect(self._address)
                channel.sendall("\n".join(assignments).encode())

    def watch(self, healthy: Callable[[], bool]) -> None:
        """Tell the manager again and again that we live, as long as `healthy` answers, and answers yes."""
        if self._address and self._patience_s:
            threading.Thread(target=self._watch, args=(healthy,), daemon=True).start()

    def _watch(self, healthy: Callable[[], bool]) -> None:
        while True:
            if healthy():
                self.notify("WATCHDOG=1")
            time.sleep(self._patience_s / BEATS)
