"""Send 64 bytes over loopback TCP and receive them, so often."""

import socket
import sys

with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
    served, _ = server.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with served:
        for _ in range(int(sys.argv[1])):
            client.send(b"x" * 64)
            served.recv(64)
