"""Gives a workload a network namespace of its own, in which nothing else makes traffic."""

import ctypes
import fcntl
import socket
import struct
import time
from pathlib import Path

CLONE_NEWNET, SIOCSIFFLAGS, IFF_UP = 0x40000000, 0x8914, 1
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
FAMILIES = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))

assert ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))


def kept(protocol, *names):
    """The counters of this network namespace."""
    files = (Path(f"/proc/self/net/{name}").read_text() for name in ("snmp", "netstat"))
    rows = [line.split() for text in files for line in text.splitlines()]
    header, numbers = (row for row in rows if row[0] == f"{protocol}:")
    found = dict(zip(header, numbers, strict=True))
    return [int(found[name]) for name in names]


def listening(family=socket.AF_INET, address="127.0.0.1"):
    server = socket.socket(family, socket.SOCK_STREAM)
    server.bind((address, 0))
    server.listen(128)
    return server


def connected(server):
    """Both ends of a connection."""
    client = socket.create_connection(server.getsockname()[:2])
    return client, server.accept()[0]


def reset(client):
    """Closed at once: nothing is left in TIME_WAIT."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def drop(end):
    """All that comes to this end from now on: a filter that returns 0."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))


def listen(end):
    end.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def send_again():
    """Data and a SYN that nobody answers, and a SYN-ACK, over IPv4 and IPv6: all are sent again."""
    for family, address in FAMILIES:
        server = listening(family, address)
        client, peer = connected(server)
        drop(peer)
        client.sendall(bytes(100_000))
        with socket.socket(family) as deaf:
            deaf.settimeout(0)  # as setblocking(False)
            drop(deaf)
            deaf.connect_ex(server.getsockname()[:2])
            time.sleep(1.5)
        listen(peer)
        reset(client)
        peer.close()
        server.close()
