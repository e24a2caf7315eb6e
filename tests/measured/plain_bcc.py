"""Loads a file of probes/plain as BCC users do, without the agent; prints a JSON object of what was found.

    BCC_KERNEL_SOURCE=HEADERS python3 plain_bcc.py FILE [kprobe|kretprobe:EVENT=FUNCTION …]

With attachments, it then exchanges 53 times 101 bytes over a TCP connection with itself, and shows the maps.
"""

import json
import re
import socket
import sys
from pathlib import Path

from bcc import BPF

PERF_EVENTS = ("trace_cache_miss",)


def kind_of(name: str, first_parameter: str) -> int:
    if name in PERF_EVENTS:
        return BPF.PERF_EVENT
    return BPF.TRACEPOINT if first_parameter.startswith("void") else BPF.KPROBE


def exchange() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
        with client, peer:
            for _ in range(53):
                client.send(bytes(101))
                left = 101
                while left:
                    left -= len(peer.recv(left))


def main(file: str, *attachments: str) -> None:
    unit = BPF(src_file=file)
    functions = re.findall(r"^int (trace_\w+)\(([^,)]*)", Path(file).read_text(), re.MULTILINE)
    for name, first in functions:
        unit.load_func(name, kind_of(name, first))
    for attachment in attachments:
        kind, event, function = re.split("[:=]", attachment)
        getattr(unit, f"attach_{kind}")(event=event, fn_name=function)
    found = {"functions": [name for name, _ in functions]}
    if attachments:
        exchange()
        traffic = {key.value: value for key, value in unit["tcp_bandwidth"].items()}
        found["traffic"] = {
            pid: {"sent": value.bytes_sent, "received": value.bytes_received, "sends": value.sends}
            for pid, value in traffic.items()
        }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
