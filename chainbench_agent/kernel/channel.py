"""Messages in JSON, with descriptors, between the daemon and its loader."""

from __future__ import annotations

import json
import socket
from typing import Any

FDS_PER_MESSAGE = 250  # the kernel's SCM_MAX_FD is 253


def send(channel: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    data = json.dumps(message | {"fds": len(fds)}).encode()
    channel.sendall(len(data).to_bytes(8, "little") + data)
    for start in range(0, len(fds), FDS_PER_MESSAGE):
        socket.send_fds(channel, [b"\0"], fds[start : start + FDS_PER_MESSAGE])


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Raises OSError when the other end is closed."""

    def exactly(count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = channel.recv(count - len(data))
            if not piece:
                raise OSError("closed")
            data += piece
        return bytes(data)

    message = json.loads(exactly(int.from_bytes(exactly(8), "little")))
    fds: list[int] = []
    while len(fds) < message["fds"]:
        data, received, _flags, _address = socket.recv_fds(channel, 1, FDS_PER_MESSAGE)
        if not data:
            raise OSError("closed")
        fds += received
    return message, fds
