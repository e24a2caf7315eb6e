"""Send a datagram over loopback and receive it, so often: each is a soft interrupt."""

import socket
import sys

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
    end.bind(("127.0.0.1", 0))
    end.connect(end.getsockname())
    for _ in range(int(sys.argv[1])):
        end.send(b"x")
        end.recv(1)
